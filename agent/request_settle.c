/* Whether a write happened is a question to the very server that was written to (MS-ADTS 3.1.1.1.9, replPropertyMetaData): the intent holds its
 * invocationId, its highestCommittedUSN and the record of unicodePwd from before. A request has up to two writes, each on a server of its own and both of the same: it is applied where one
 * of them is, and not applied where neither is. */
#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/log.h"

#define READ_TIMEOUT_MS 5000
#define RECORD_SLACK_S 2
#define ANNOUNCE_MS 1000
#define TICK_MAX_MS 1000

/* What a server holds that a write went to, from before. */
struct intent {
	const char *server;
	const uint8_t *invocation_id;
	uint64_t highest_committed_usn;
	uint32_t version;
	const uint8_t *originator;
	uint64_t originating_usn;
};

enum verdict { VERDICT_APPLIED, VERDICT_UNCHANGED, VERDICT_REPLACED, VERDICT_UNREADABLE };

static bool is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];
	return memcmp(id, zero, 16) == 0;
}

static struct intent intent_of(const struct journal_entry *entry, int which)
{
	if (which == SECOND)
		return (struct intent){ entry->second_server, entry->second_invocation_id, entry->second_committed_usn, entry->second_password_version, entry->second_password_originator,
		                        entry->second_password_originating_usn };
	return (struct intent){ entry->server, entry->invocation_id, entry->highest_committed_usn, entry->password_version, entry->password_originator, entry->password_originating_usn };
}

static bool is_unchanged(const struct intent *intent, const struct replication_record *record)
{
	return record->version == intent->version && record->originating_usn == intent->originating_usn && memcmp(record->originator, intent->originator, 16) == 0;
}

bool request_record_is_unchanged(const struct request *request, const struct replication_record *record)
{
	struct intent intent = intent_of(&request->entry, FIRST);
	return record->known && is_unchanged(&intent, record);
}

/* Each write counts the version up by one (MS-ADTS 3.1.1.1.9): where it went further than `writes`, somebody else wrote as well, and whose is the last cannot be seen. */
static enum verdict judge_record(const struct intent *intent, const struct replication_record *record, unsigned writes)
{
	if (!record->known || is_zero(intent->invocation_id) || intent->highest_committed_usn == 0)
		return VERDICT_UNREADABLE;
	if (memcmp(record->originator, intent->invocation_id, 16) == 0 && record->originating_usn > intent->highest_committed_usn)
		return record->version <= intent->version + writes ? VERDICT_APPLIED : VERDICT_REPLACED;
	return is_unchanged(intent, record) ? VERDICT_UNCHANGED : VERDICT_REPLACED;
}

/* Ours is not younger than the end of the connection that it went over, by that server's own clock. A younger one through the same server may be an administrator's, and whether
 * ours stood there before cannot be seen. Replication's times are whole seconds. */
static bool may_be_ours(const struct attempt *attempt, const struct located *located)
{
	int64_t server_s = located_position(located)->current_time_s, ago_s = (clock_now_ms() - attempt->lost_ms) / 1000;
	return server_s == 0 || located_password_record(located)->time_s <= server_s - ago_s + RECORD_SLACK_S;
}

/* On another server only what is there proves anything: what is not there may not have come yet. */
static enum verdict judge_reading(const struct request *request, int which, const struct located *located)
{
	const struct intent intent = intent_of(&request->entry, which);
	const struct server_position *position = located_position(located);
	bool same_server = position->invocation_known ? memcmp(position->invocation_id, intent.invocation_id, 16) == 0 : strcasecmp(position->server, intent.server) == 0;
	if (!request->entry.sets_password)
		return !same_server ? VERDICT_UNREADABLE : located_account(located)->lockout_time_set ? VERDICT_UNCHANGED : VERDICT_APPLIED;
	enum verdict verdict = judge_record(&intent, located_password_record(located), (unsigned)request->attempts[FIRST].open + request->attempts[SECOND].open);
	if (verdict == VERDICT_APPLIED && !may_be_ours(&request->attempts[which], located))
		return same_server ? VERDICT_REPLACED : VERDICT_UNREADABLE;
	return same_server || verdict == VERDICT_APPLIED ? verdict : VERDICT_UNREADABLE;
}

static void schedule(struct request *request, int64_t ms)
{
	if (request->timer)
		event_add(request->timer, &(struct timeval){ ms / 1000, ms % 1000 * 1000 });
}

static void schedule_next(struct request *request)
{
	int64_t ms = request_settings(request)->settling_delay_ms / 6;
	schedule(request, ms < 100 ? 100 : ms > TICK_MAX_MS ? TICK_MAX_MS : ms);
}

static void end(struct request *request, enum status status)
{
	request->settling = false;
	request_finish(request, status);
}

static void end_applied(struct request *request, int which)
{
	if (which == SECOND) {
		free(request->result.server);
		request->result.server = strdup(request->entry.second_server);
	}
	end(request, STATUS_OK);
}

/* `located` NULL: nobody could be read. */
static void judge_attempts(const struct request *request, const struct located *located, enum verdict verdicts[ATTEMPTS])
{
	for (int i = 0; i < ATTEMPTS; i++)
		verdicts[i] = located && request->attempts[i].open ? judge_reading(request, i, located) : VERDICT_UNREADABLE;
}

static bool is_applied(const enum verdict verdicts[ATTEMPTS])
{
	return verdicts[FIRST] == VERDICT_APPLIED || verdicts[SECOND] == VERDICT_APPLIED;
}

/* Either will do: both set the same password. */
static bool end_if_applied(struct request *request, const enum verdict verdicts[ATTEMPTS])
{
	for (int i = 0; i < ATTEMPTS; i++)
		if (verdicts[i] == VERDICT_APPLIED) {
			end_applied(request, i);
			return true;
		}
	return false;
}

bool request_settled_by(struct request *request, const struct located *located)
{
	enum verdict verdicts[ATTEMPTS];
	judge_attempts(request, located, verdicts);
	if (is_applied(verdicts))
		request_look_after(request, request->located);
	return end_if_applied(request, verdicts);
}

/* A server that has just begun to answer again may still hold our modify: until it has answered for the whole delay only a good answer is one. */
static bool stayed_unchanged(struct attempt *attempt, enum verdict verdict, bool asked, int64_t delay_us)
{
	int64_t now = clock_monotonic_us();
	if (verdict == VERDICT_UNCHANGED && !attempt->unchanged_us)
		attempt->unchanged_us = now;
	else if (verdict != VERDICT_UNCHANGED && asked)
		attempt->unchanged_us = 0;
	return !attempt->open || (attempt->unchanged_us && now - attempt->unchanged_us >= delay_us);
}

static void conclude(struct request *request, const enum verdict verdicts[ATTEMPTS])
{
	const struct settings *settings = request_settings(request);
	int64_t waited_ms = (clock_monotonic_us() - request->settle_began_us) / 1000;
	bool unchanged = true, replaced = false;
	if (end_if_applied(request, verdicts))
		return;
	for (int i = 0; i < ATTEMPTS; i++) {
		unchanged &= stayed_unchanged(&request->attempts[i], verdicts[i], i == request->asked, settings->settling_delay_ms * 1000);
		replaced |= verdicts[i] == VERDICT_REPLACED;
	}
	if (unchanged) {
		request->wrote = false;
		end(request, request->write_status);
	} else if ((replaced && waited_ms >= settings->settling_delay_ms) || waited_ms >= settings->settling_limit_ms)
		end(request, STATUS_OUTCOME_UNKNOWN);
	else
		schedule_next(request);
}

static void handle_reading(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	enum verdict verdicts[ATTEMPTS];
	judge_attempts(request, status == STATUS_OK ? take_located : NULL, verdicts);
	if (is_applied(verdicts))
		request_look_after(request, take_located);
	located_free(take_located);
	if (!request->all->closing)
		conclude(request, verdicts);
}

/* The servers of open writes in turn. */
static void read_again(struct request *request)
{
	struct directory_call *call;
	request->asked = request->attempts[SECOND].open && (request->asked == FIRST || !request->attempts[FIRST].open) ? SECOND : FIRST;
	const char *server = intent_of(&request->entry, request->asked).server;
	if (directory_locate(realm_directory(request->realm), realm_identity(request->realm), request->entry.user_guid, server, READ_TIMEOUT_MS, handle_reading, request, &call) != STATUS_OK)
		conclude(request, (const enum verdict[ATTEMPTS]){ VERDICT_UNREADABLE, VERDICT_UNREADABLE });
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

/* A second write takes a moment mostly: nobody is told of settling before that has not helped. */
static void announce(struct request *request)
{
	request->settling = true;
	log_event(LOG_NOTICE, "request.settling",
	          LOG_FIELDS({ LOG_OPERATION_ID, request->entry.operation_id }, { LOG_REQUEST_ID, request->entry.request_id }, { LOG_USER_GUID, request->entry.user_guid },
	                     { LOG_SERVER, request->entry.server }, { LOG_CODE, status_code(request->write_status) }),
	          "the answer to a write was lost; the truth is read from the server that was written to");
	request_send_result(request);
	refuse_waiting(request);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct request *request = arg;
	if (request->all->closing)
		return;
	if (!request->settling)
		announce(request);
	if (!request->second_running && !request_second_begin(request))
		read_again(request);
}

static void begin(struct request *request)
{
	request->wrote = true;
	request->attempts[FIRST].open = true;
	request->settle_began_us = clock_monotonic_us();
	if (!request->timer)
		request->timer = event_new(request->all->world.base, -1, 0, look, request);
}

void request_settle_on(struct request *request)
{
	if (request->all->closing) /* the intents stay, and are settled at the next start */
		return;
	if (request->settling) {
		read_again(request);
		return;
	}
	announce(request);
	schedule_next(request);
}

void request_settle(struct request *request, enum status status)
{
	/* Its connection is the one that is not believed any more. */
	located_free(request->located);
	request->located = NULL;
	if (request->all->closing)
		return;
	request->write_status = status;
	request->attempts[FIRST].lost_ms = clock_now_ms();
	request->result.code = STATUS_SETTLING;
	begin(request);
	if (request_second_begin(request))
		schedule(request, ANNOUNCE_MS);
	else
		request_settle_on(request);
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
	int64_t began_ms = request->entry.second_at_ms ? request->entry.second_at_ms : request->entry.intent_at_ms;
	int64_t given_up_ms = began_ms + settings->locate_timeout_ms + settings->write_timeout_ms, now_ms = clock_now_ms();
	request->attempts[FIRST].lost_ms = request->attempts[SECOND].lost_ms = given_up_ms < now_ms ? given_up_ms : now_ms;
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
			request->settling = true;
			request->attempts[SECOND].open = request->entry.second_server[0];
			begin(request);
			schedule_next(request);
		}
		else
			request_finish(request, STATUS_OUTCOME_UNKNOWN);
	}
}
