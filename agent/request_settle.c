/* Whether a write happened is a question to the very server that was written to (MS-ADTS 3.1.1.1.9, replPropertyMetaData): the intent holds its
 * invocationId, its highestCommittedUSN and the record of unicodePwd from before. */
#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/log.h"

#define READ_TIMEOUT_MS 5000
#define RECORD_SLACK_S 2

enum verdict { VERDICT_APPLIED, VERDICT_UNCHANGED, VERDICT_REPLACED, VERDICT_UNREADABLE };

static bool is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];
	return memcmp(id, zero, 16) == 0;
}

static enum verdict judge_record(const struct journal_entry *entry, const struct replication_record *record)
{
	if (!record->known || is_zero(entry->invocation_id) || entry->highest_committed_usn == 0)
		return VERDICT_UNREADABLE;
	if (memcmp(record->originator, entry->invocation_id, 16) == 0 && record->originating_usn > entry->highest_committed_usn)
		return VERDICT_APPLIED;
	bool same = record->version == entry->password_version && record->originating_usn == entry->password_originating_usn && memcmp(record->originator, entry->password_originator, 16) == 0;
	return same ? VERDICT_UNCHANGED : VERDICT_REPLACED;
}

/* Ours is not younger than the end of the connection that it went over, by that server's own clock. A younger one through the same server may be an administrator's, and whether
 * ours stood there before cannot be seen. Replication's times are whole seconds. */
static bool may_be_ours(const struct request *request, const struct located *located)
{
	int64_t server_s = located_position(located)->current_time_s, ago_s = (clock_now_ms() - request->lost_ms) / 1000;
	return server_s == 0 || located_password_record(located)->time_s <= server_s - ago_s + RECORD_SLACK_S;
}

/* On another server only what is there proves anything: what is not there may not have come yet. */
static enum verdict judge_reading(const struct request *request, const struct located *located)
{
	const struct journal_entry *entry = &request->entry;
	const struct server_position *position = located_position(located);
	bool same_server = position->invocation_known ? memcmp(position->invocation_id, entry->invocation_id, 16) == 0 : strcasecmp(position->server, entry->server) == 0;
	if (!entry->sets_password)
		return !same_server ? VERDICT_UNREADABLE : located_account(located)->lockout_time_set ? VERDICT_UNCHANGED : VERDICT_APPLIED;
	enum verdict verdict = judge_record(entry, located_password_record(located));
	if (verdict == VERDICT_APPLIED && !may_be_ours(request, located))
		return same_server ? VERDICT_REPLACED : VERDICT_UNREADABLE;
	return same_server || verdict == VERDICT_APPLIED ? verdict : VERDICT_UNREADABLE;
}

static void schedule(struct request *request)
{
	int64_t ms = request_settings(request)->settling_delay_ms / 6;
	ms = ms < 100 ? 100 : ms;
	event_add(request->timer, &(struct timeval){ ms / 1000, ms % 1000 * 1000 });
}

static void end(struct request *request, enum status status)
{
	request->settling = false;
	request_finish(request, status);
}

static void conclude(struct request *request, enum verdict verdict)
{
	const struct settings *settings = request_settings(request);
	int64_t now = clock_monotonic_us(), waited_ms = (now - request->settle_began_us) / 1000;
	if (verdict != VERDICT_UNCHANGED || !request->unchanged_us)
		request->unchanged_us = verdict == VERDICT_UNCHANGED ? now : 0;
	/* A server that has just begun to answer again may still hold our modify: until it has answered for the whole delay only a good answer is one. */
	if (verdict == VERDICT_APPLIED)
		end(request, STATUS_OK);
	else if (verdict == VERDICT_UNCHANGED && now - request->unchanged_us >= settings->settling_delay_ms * 1000) {
		request->wrote = false;
		end(request, request->write_status);
	} else if ((verdict == VERDICT_REPLACED && waited_ms >= settings->settling_delay_ms) || waited_ms >= settings->settling_limit_ms)
		end(request, STATUS_OUTCOME_UNKNOWN);
	else
		schedule(request);
}

static void handle_reading(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	enum verdict verdict = status == STATUS_OK ? judge_reading(request, take_located) : VERDICT_UNREADABLE;
	located_free(take_located);
	if (!request->all->closing)
		conclude(request, verdict);
}

static void read_again(evutil_socket_t fd, short what, void *arg)
{
	struct request *request = arg;
	struct directory_call *call;
	if (request->all->closing)
		return;
	if (directory_locate(realm_directory(request->realm), LOCATE_OBJECT_GUID, request->entry.user_guid, request->entry.server, READ_TIMEOUT_MS, handle_reading, request, &call) != STATUS_OK)
		conclude(request, VERDICT_UNREADABLE);
}

/* While one request of a user is being settled the others are told so instead of waiting. */
static void refuse_waiting(struct request *settling)
{
	for (struct request *request = settling->all->first, *next; request; request = next) {
		next = request->next;
		if (!request->waits_for_turn || strcmp(request->entry.user_guid, settling->entry.user_guid) != 0)
			continue;
		limits_end_turn(request->all->world.limits, &request->turn);
		request->waits_for_turn = false;
		request_finish(request, STATUS_USER_BUSY);
		next = settling->all->first; /* the list may have changed */
	}
}

static void begin(struct request *request)
{
	request->settling = true;
	request->wrote = true;
	request->settle_began_us = clock_monotonic_us();
	if (!request->timer)
		request->timer = event_new(request->all->world.base, -1, 0, read_again, request);
	if (request->timer)
		schedule(request);
}

void request_settle(struct request *request, enum status status)
{
	secret_claims_clear(&request->secret);
	/* Its connection is the one that is not believed any more. */
	located_free(request->located);
	request->located = NULL;
	if (request->all->closing) /* the intent stays, and is settled at the next start */
		return;
	request->write_status = status;
	request->lost_ms = clock_now_ms();
	request->result.code = STATUS_SETTLING;
	log_event(LOG_NOTICE, "request.settling",
	          LOG_FIELDS({ LOG_OPERATION_ID, request->entry.operation_id }, { LOG_REQUEST_ID, request->entry.request_id }, { LOG_USER_GUID, request->entry.user_guid },
	                     { LOG_SERVER, request->entry.server }, { LOG_CODE, status_code(status) }),
	          "the answer to a write was lost; the truth is read from the server that was written to");
	begin(request);
	request_send_result(request);
	refuse_waiting(request);
}

/* At the start -------------------------------------------------------------------------------------------------------------------------- */

static bool settle_entry(const struct journal_entry *entry, void *arg)
{
	struct requests *requests = arg;
	if (entry->state == JOURNAL_OUTCOME)
		return true;
	struct request *request = request_new(requests);
	if (!request)
		return false;
	request->entry = *entry;
	request->entry.result = NULL;
	request->intent = true;
	request->write_status = STATUS_DIRECTORY_UNAVAILABLE;
	request->realm = realms_find(requests->world.realms, entry->directory);
	if (!operation_from_name(entry->op, &request->op))
		request->op = OP_RESET;
	strcpy(request->result.request_id, entry->request_id);
	strcpy(request->result.operation_id, entry->operation_id);
	strcpy(request->result.user_guid, entry->user_guid);
	request->result.directory = strdup(entry->directory);
	request->result.server = strdup(entry->server);
	request->result.code = STATUS_SETTLING;
	return true;
}

/* The agent ended at an unknown time, but not later than now, nor long after its write would have been given up. */
static void note_loss(struct request *request)
{
	const struct settings_directory *settings = realm_settings(request->realm);
	int64_t given_up_ms = request->entry.intent_at_ms + settings->locate_timeout_ms + settings->write_timeout_ms, now_ms = clock_now_ms();
	request->lost_ms = given_up_ms < now_ms ? given_up_ms : now_ms;
}

static void ignore_turn(void *arg)
{
}

void requests_settle_journal(struct requests *requests)
{
	journal_each(requests->world.journal, settle_entry, requests);
	for (struct request *request = requests->first, *next; request; request = next) {
		next = request->next;
		bool now = false;
		request->turn.granted = ignore_turn;
		if (limits_take_turn(requests->world.limits, request->entry.user_guid, &request->turn, &now) == STATUS_OK)
			request->has_turn = true;
		log_event(LOG_NOTICE, "request.settling", LOG_FIELDS({ LOG_OPERATION_ID, request->entry.operation_id }, { LOG_REQUEST_ID, request->entry.request_id }, { LOG_SERVER, request->entry.server }),
		          "the journal has an intent without an outcome: the agent ended in the middle of a write");
		/* A directory that is configured no more cannot be asked. */
		if (request->realm) {
			note_loss(request);
			begin(request);
		}
		else
			request_finish(request, STATUS_OUTCOME_UNKNOWN);
	}
}
