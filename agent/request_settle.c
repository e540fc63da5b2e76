/* Whether a write happened is a question to the very server that was written to (MS-ADTS 3.1.1.1.9, replPropertyMetaData): the intent holds its
 * invocationId, its highestCommittedUSN and the record of unicodePwd from before. A request has up to two writes, each on a server of its own and both of the same: it is applied where one
 * of them is, and not applied where neither is. A record that was written meanwhile may be another's: one bind with the new password at that server decides, where the password is at hand
 * (request_proof.c); where it is not, the record alone has to do. */
#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"

#define READ_TIMEOUT_MS 5000
#define RECORD_SLACK_S 2
#define CLOCKS_SLACK_S 5
#define ANNOUNCE_MS 1000
#define TICK_MAX_MS 1000
#define REDELIVERY_MS 10000

/* What a server holds that a write went to, from before. */
struct intent {
	const char *server;
	const uint8_t *invocation_id;
	uint64_t highest_committed_usn;
	uint32_t version;
	const uint8_t *originator;
	uint64_t originating_usn;
};

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

static bool is_record(const struct replication_record *record, uint32_t version, const uint8_t originator[16], uint64_t originating_usn)
{
	return record->version == version && record->originating_usn == originating_usn && memcmp(record->originator, originator, 16) == 0;
}

static bool is_unchanged(const struct intent *intent, const struct replication_record *record)
{
	return is_record(record, intent->version, intent->originator, intent->originating_usn);
}

bool request_record_is_unchanged(const struct request *request, const struct replication_record *record)
{
	return request_same_record(record, &request->record);
}

/* Each write counts the version up by one (MS-ADTS 3.1.1.1.9): where it went further than `writes`, somebody else wrote as well, and whose is the last cannot be seen. */
static enum verdict judge_record(const struct intent *intent, const struct replication_record *record, unsigned writes)
{
	if (!record->known || record->young || is_zero(intent->invocation_id) || intent->highest_committed_usn == 0)
		return VERDICT_UNREADABLE;
	if (memcmp(record->originator, intent->invocation_id, 16) == 0 && record->originating_usn > intent->highest_committed_usn)
		return record->version <= intent->version + writes ? VERDICT_APPLIED : VERDICT_REPLACED;
	return is_unchanged(intent, record) ? VERDICT_UNCHANGED : VERDICT_REPLACED;
}

/* Ours is not younger than the end of the connection that it went over, by that server's own clock. A younger one through the same server may be an administrator's, and whether
 * ours stood there before cannot be seen. Replication's times are whole seconds. Of a server that tells no time (flavor ldap) the agent's clock has to do, and the two may differ. */
static bool may_be_ours(const struct attempt *attempt, const struct located *located)
{
	int64_t server_s = located_position(located)->current_time_s, ago_s = (clock_boottime_us() - attempt->lost_us) / 1000000;
	int64_t latest_s = (server_s ? server_s + RECORD_SLACK_S : clock_now_ms() / 1000 + CLOCKS_SLACK_S) - ago_s;
	return located_password_record(located)->time_s <= latest_s;
}

static bool is_same_server(const struct intent *intent, const struct server_position *position)
{
	return position->invocation_known ? memcmp(position->invocation_id, intent->invocation_id, 16) == 0 : strcasecmp(position->server, intent->server) == 0;
}

/* The bind has shown this record to be another's. Ours was not done up to then if it is the only write since the intent: there, and one version on. Had ours been done, it would be the first of two
 * (or be one that another server's replaced, whose record that would be). It may still come, as where nothing is changed. */
static enum verdict judge_beside_foreign(const struct intent *intent, const struct replication_record *foreign, const struct replication_record *record, const struct server_position *position)
{
	bool alone = position->invocation_known && foreign->version == intent->version + 1 && memcmp(foreign->originator, intent->invocation_id, 16) == 0;
	return alone && is_record(record, foreign->version, foreign->originator, foreign->originating_usn) ? VERDICT_UNCHANGED : VERDICT_REPLACED;
}

/* The bind at the server that was written to may still come: after a crash the service delivers the request again as soon as there is a channel. While there is none nobody could be told
 * anything. The last quarter of the limit is for what can be said without it. */
static bool may_wait_for_proof(const struct request *request)
{
	const struct settings *settings = request_settings(request);
	int64_t now = clock_monotonic_us(), ready_us = request->all->channel_us, patience_ms = settings->settling_delay_ms > REDELIVERY_MS ? settings->settling_delay_ms : REDELIVERY_MS;
	bool has_secret = request->secret.new_password.size, may_come = !request->verified && (ready_us == 0 || now - ready_us < patience_ms * 1000);
	return !request->proof_spent && !request->all->closing && (has_secret || may_come) && now - request->settle_began_us < settings->settling_limit_ms * 750;
}

/* On another server only what is there proves anything: what is not there may not have come yet. A record that came by replication says that there was a write, and not whose. */
static enum verdict judge_reading(const struct request *request, int which, const struct located *located)
{
	const struct intent intent = intent_of(&request->entry, which);
	const struct server_position *position = located_position(located);
	const struct replication_record *foreign = &request->attempts[which].foreign;
	bool same_server = is_same_server(&intent, position);
	if (!request->entry.sets_password)
		return !same_server ? VERDICT_UNREADABLE : located_account(located)->lockout_time_set ? VERDICT_UNCHANGED : VERDICT_APPLIED;
	enum verdict verdict = judge_record(&intent, located_password_record(located), (unsigned)request->attempts[FIRST].open + request->attempts[SECOND].open);
	if (foreign->known && (verdict == VERDICT_APPLIED || verdict == VERDICT_REPLACED))
		return same_server ? judge_beside_foreign(&intent, foreign, located_password_record(located), position) : VERDICT_UNREADABLE;
	if (verdict == VERDICT_APPLIED && (request->proof_lost || !may_be_ours(&request->attempts[which], located)))
		return same_server ? VERDICT_REPLACED : VERDICT_UNREADABLE;
	return same_server || (verdict == VERDICT_APPLIED && !may_wait_for_proof(request)) ? verdict : VERDICT_UNREADABLE;
}

static void look(evutil_socket_t fd, short what, void *arg);

static void schedule_next(struct request *request)
{
	int64_t ms = request_settings(request)->settling_delay_ms / 6;
	request_wake(request, ms < 100 ? 100 : ms > TICK_MAX_MS ? TICK_MAX_MS : ms, look);
}

static void end(struct request *request, enum status status)
{
	CRASH_POINT(SETTLED);
	request->settling = false;
	request_finish(request, status);
}

static void end_applied(struct request *request, int which)
{
	request_forget_answer(request);
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

/* The connection stands as long as others' operations are outstanding on it. */
static bool may_still_come(struct attempt *attempt)
{
	if (attempt->sent_over && !located_is_retiring(attempt->sent_over)) {
		located_free(attempt->sent_over);
		attempt->sent_over = NULL;
	}
	return attempt->sent_over;
}

/* A server that has just begun to answer again may still hold our modify: until it has answered for the whole delay behind the end of the modify's connection only a good answer is one. */
static bool stayed_unchanged(struct attempt *attempt, enum verdict verdict, bool asked, int64_t delay_us)
{
	int64_t now = clock_monotonic_us();
	if (may_still_come(attempt) || (verdict != VERDICT_UNCHANGED && asked))
		attempt->unchanged_us = 0;
	else if (verdict == VERDICT_UNCHANGED && !attempt->unchanged_us)
		attempt->unchanged_us = now;
	return !attempt->open || (attempt->unchanged_us && now - attempt->unchanged_us >= delay_us);
}

static void conclude(struct request *request)
{
	const enum verdict *verdicts = request->verdicts;
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
		snprintf(request->why, sizeof request->why, "the answer to the write was lost, and the user's record shows that nothing was written");
		end(request, request->write_status);
	} else if ((replaced && waited_ms >= settings->settling_delay_ms) || waited_ms >= settings->settling_limit_ms)
		end(request, STATUS_OUTCOME_UNKNOWN);
	else
		schedule_next(request);
}

/* The write whose own server shows a record that it, or another, has made; ATTEMPTS: none. */
static int find_in_doubt(const struct request *request, const struct located *located)
{
	int which = FIRST;
	for (; which < ATTEMPTS; which++) {
		const struct intent intent = intent_of(&request->entry, which);
		if ((request->verdicts[which] == VERDICT_APPLIED || request->verdicts[which] == VERDICT_REPLACED) && is_same_server(&intent, located_position(located)))
			break;
	}
	return which;
}

static bool waits_for_frame(const struct request *request, const struct located *located)
{
	return may_wait_for_proof(request) && request_provable(request, located) == PROOF_WANTS_SECRET;
}

/* The one bind was wrong: whoever's it is, it is not ours, wherever it is read. */
static void note_foreign(struct request *request, const struct replication_record *record)
{
	for (int i = 0; i < ATTEMPTS; i++)
		if (i == request->in_doubt || memcmp(intent_of(&request->entry, i).invocation_id, record->originator, 16) == 0)
			request->attempts[i].foreign = *record;
}

static void handle_proof(struct request *request, enum proof proof, struct located *located)
{
	if (proof == PROOF_RIGHT || proof == PROOF_RIGHT_MUST_CHANGE) {
		end_applied(request, request->in_doubt);
		return;
	}
	/* It was not made: its connection was lost before, or the disk would not have it. */
	if (may_wait_for_proof(request)) {
		schedule_next(request);
		return;
	}
	if (proof == PROOF_WRONG) {
		note_foreign(request, located_password_record(located));
		judge_attempts(request, located, request->verdicts);
	}
	conclude(request);
}

static void handle_reading(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	CRASH_POINT(SETTLING_READ);
	judge_attempts(request, status == STATUS_OK ? take_located : NULL, request->verdicts);
	if (is_applied(request->verdicts))
		request_look_after(request, take_located);
	request->in_doubt = status != STATUS_OK ? ATTEMPTS : find_in_doubt(request, take_located);
	if (request->in_doubt < ATTEMPTS && request_prove(request, take_located, 0, handle_proof))
		return;
	bool wait = request->in_doubt < ATTEMPTS && waits_for_frame(request, take_located);
	located_free(take_located);
	if (wait)
		schedule_next(request);
	else if (!request->all->closing)
		conclude(request);
}

/* The servers of open writes in turn. */
static void read_again(struct request *request)
{
	struct directory_call *call;
	request->asked = request->attempts[SECOND].open && (request->asked == FIRST || !request->attempts[FIRST].open) ? SECOND : FIRST;
	const char *server = intent_of(&request->entry, request->asked).server;
	if (directory_locate(realm_directory(request->realm), realm_identity(request->realm), request->entry.user_guid, server, READ_TIMEOUT_MS, handle_reading, request, &call) != STATUS_OK) {
		request->verdicts[FIRST] = request->verdicts[SECOND] = VERDICT_UNREADABLE;
		conclude(request);
	}
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
	if (!request->settling)
		announce(request);
	if (!request->second_running && !request->proving && !request_second_begin(request))
		read_again(request);
}

static void begin(struct request *request)
{
	request->wrote = true;
	request->attempts[FIRST].open = true;
	request->settle_began_us = clock_monotonic_us();
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
	request->attempts[FIRST].sent_over = request->located;
	request->located = NULL;
	if (request->all->closing)
		return;
	request->write_status = status;
	request->attempts[FIRST].lost_us = clock_boottime_us();
	secret_wipe(&request->secret.old_password);
	request->result.code = STATUS_SETTLING;
	CRASH_POINT(SETTLING_BEGUN);
	begin(request);
	if (request_second_begin(request))
		request_wake(request, ANNOUNCE_MS, look);
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
	/* The agent ended in doubt, and what the bind said is not known. */
	request->proof_lost = entry->state != JOURNAL_INTENT;
	request->proof_spent = entry->state == JOURNAL_SETTLING_AGAIN;
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

/* A write follows its intent within a moment. A record from later may be of a slow one, or another's: that is for the bind, once the service has delivered the request again. */
#define PROMPT_MS 1000

static int64_t lost_behind(int64_t intent_at_ms, int64_t now_ms)
{
	int64_t ago_ms = now_ms - intent_at_ms - PROMPT_MS;
	return clock_boottime_us() - (ago_ms > 0 ? ago_ms : 0) * 1000;
}

static void note_loss(struct request *request)
{
	int64_t now_ms = clock_now_ms();
	request->attempts[FIRST].lost_us = lost_behind(request->entry.intent_at_ms, now_ms);
	request->attempts[SECOND].lost_us = lost_behind(request->entry.second_at_ms, now_ms);
	request->server_time_s = now_ms / 1000;
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
			CRASH_POINT(SETTLING_RESTORED);
			request->settling = true;
			request->attempts[SECOND].open = request->entry.second_server[0];
			begin(request);
			schedule_next(request);
		}
		else
			request_finish(request, STATUS_OUTCOME_UNKNOWN);
	}
}
