#include "agent/outbox.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define BATCH 16
#ifndef ROUND_MAX
#define ROUND_MAX 8192
#endif

struct outbox {
	struct journal *journal;
	const struct identity *identity;
	outbox_send_function send;
	void *arg;
	struct event *working;
	char (*ids)[UUID_SIZE];
	size_t count, next;
	char last[UUID_SIZE];          /* told in the round before */
	enum { TO_THE_END, UP_TO_LAST } part;
	bool passed_last;
	int64_t before_us;
};

char *outbox_stamp(const struct identity *identity, const char *payload, int64_t now_s)
{
	/* The text is result_build's own, so only the number is exchanged; a quote inside a string has a backslash before it. */
	static const char iss[] = "{\"iss\":\"", iat[] = ",\"iat\":";
	const char *agent_id = payload + strlen(iss), *number = strstr(payload, iat);
	char *stamped;
	if (strncmp(payload, iss, strlen(iss)) != 0 || strncmp(agent_id, identity->agent_id, UUID_SIZE - 1) != 0 || agent_id[UUID_SIZE - 1] != '"' || !number)
		return NULL;
	number += strlen(iat);
	int head = (int)(number - payload);
	return asprintf(&stamped, "%.*s%lld%s", head, payload, (long long)now_s, number + strspn(number, "0123456789")) < 0 ? NULL : stamped;
}

static void end_round(struct outbox *outbox)
{
	free(outbox->ids);
	outbox->ids = NULL;
	outbox->count = outbox->next = 0;
}

static bool send_one(struct outbox *outbox, const char *request_id)
{
	const struct journal_entry *entry = journal_find(outbox->journal, request_id);
	if (!entry || entry->acknowledged || !entry->result || entry->pending)
		return true;
	AUTO_FREE char *payload = outbox_stamp(outbox->identity, entry->result, clock_now_ms() / 1000);
	return !payload || outbox->send(bytes_of_string(payload), outbox->arg) == STATUS_OK;
}

static void work(evutil_socket_t fd, short what, void *arg)
{
	struct outbox *outbox = arg;
	for (unsigned i = 0; i < BATCH && outbox->next < outbox->count; i++) {
		if (!send_one(outbox, outbox->ids[outbox->next])) {
			outbox->next = outbox->count; /* nobody takes it: the next round begins with it */
			break;
		}
		strcpy(outbox->last, outbox->ids[outbox->next++]);
	}
	if (outbox->next < outbox->count)
		event_add(outbox->working, &(struct timeval){ 0, 1000 });
	else
		end_round(outbox);
}

static bool collect(const struct journal_entry *entry, void *arg)
{
	struct outbox *outbox = arg;
	bool is_last = strcmp(entry->request_id, outbox->last) == 0;
	if (outbox->part == TO_THE_END && !outbox->passed_last) {
		outbox->passed_last = is_last;
		return true;
	}
	/* One that is not on disk yet is told by its own request once it is. */
	if (entry->state == JOURNAL_OUTCOME && !entry->pending && !entry->acknowledged && entry->result && entry->outcome_us <= outbox->before_us)
		strcpy(outbox->ids[outbox->count++], entry->request_id);
	return outbox->count < ROUND_MAX && !(outbox->part == UP_TO_LAST && is_last);
}

void outbox_repeat(struct outbox *outbox, int64_t age_ms)
{
	if (outbox->ids || journal_unacknowledged(outbox->journal) == 0)
		return;
	outbox->ids = calloc(ROUND_MAX, sizeof *outbox->ids);
	if (!outbox->ids)
		return;
	outbox->before_us = clock_monotonic_us() - age_ms * 1000;
	/* From where the round before ended, then from the beginning: where there are more than fit, all have their turn. */
	outbox->passed_last = false;
	outbox->part = TO_THE_END;
	journal_each(outbox->journal, collect, outbox);
	outbox->part = UP_TO_LAST;
	if (outbox->count < ROUND_MAX)
		journal_each(outbox->journal, collect, outbox);
	event_add(outbox->working, &(struct timeval){ 0, 0 });
}

struct outbox *outbox_new(struct event_base *base, struct journal *journal, const struct identity *identity, outbox_send_function send, void *arg)
{
	struct outbox *outbox = calloc(1, sizeof *outbox);
	if (!outbox)
		return NULL;
	*outbox = (struct outbox){ .journal = journal, .identity = identity, .send = send, .arg = arg };
	outbox->working = event_new(base, -1, 0, work, outbox);
	if (outbox->working)
		return outbox;
	free(outbox);
	return NULL;
}

void outbox_free(struct outbox *outbox)
{
	if (!outbox)
		return;
	event_free(outbox->working);
	free(outbox->ids);
	free(outbox);
}
