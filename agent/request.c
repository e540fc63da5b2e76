#include "agent/request.h"

#include <stdio.h>
#include <string.h>

#include "agent/gate/policy.h"
#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/nfc.h"

#define CLOCK_SKEW_MS 60000
#define UNVERIFIED_A_SECOND 10
#define REFUSALS_MAX 16384
#define AHEAD_MAX_S 86400

/* Each stage does its part or says why not. One that waits sets request->pending; its callback comes back by request_resume(). */
struct request_stage {
	const char *name;
	enum status (*run)(struct request *request);
	unsigned operations;              /* whose stage it is */
};

enum {
	RESET = 1 << OP_RESET, CHANGE = 1 << OP_CHANGE, UNLOCK = 1 << OP_UNLOCK, CHECK = 1 << OP_CHECK, LOOKUP = 1 << OP_LOOKUP, VERIFY = 1 << OP_VERIFY, POLICY = 1 << OP_POLICY,
	ALL = (1 << OP_COUNT) - 1,
	WRITES = RESET | CHANGE | UNLOCK,
	TURNS = WRITES | CHECK,           /* one at a time for one user */
	NEW_PASSWORD = RESET | CHANGE | CHECK,
	OLD_PASSWORD = CHANGE | VERIFY,
};

static enum status choose_directory(struct request *request);
static enum status locate_user(struct request *request);
static enum status judge_scope(struct request *request);
static enum status judge_state(struct request *request);
static enum status take_turn(struct request *request);
static enum status locate_again(struct request *request);
static enum status admit_write(struct request *request);
static enum status decrypt_secret(struct request *request);
static enum status judge_password(struct request *request);
static enum status answer_check(struct request *request);
static enum status leave_if_unlocked(struct request *request);
static enum status record_intent(struct request *request);
static enum status recheck_user(struct request *request);
static enum status write_change(struct request *request);

/* The order. Before it: the signature (session.c), the known id and the claims (requests_handle); behind it, for every one: request_finish. */
static const struct request_stage stages[] = {
	{ "directory", choose_directory, ALL },
	{ "questions", request_admit_question, LOOKUP | POLICY },
	{ "locate", locate_user, ALL },
	{ "scope", judge_scope, ALL },
	{ "account", request_answer_lookup, LOOKUP },
	{ "policy", request_answer_policy, POLICY },
	{ "state", judge_state, TURNS },
	{ "turn", take_turn, TURNS },
	{ "locate again", locate_again, TURNS },
	{ "scope", judge_scope, TURNS },
	{ "state", judge_state, TURNS },
	{ "lineage", request_judge_lineage, WRITES },
	{ "admit", admit_write, WRITES },
	{ "decrypt", decrypt_secret, NEW_PASSWORD | OLD_PASSWORD },
	{ "rules", judge_password, NEW_PASSWORD },
	{ "check", answer_check, CHECK },
	{ "guess", request_admit_guess, OLD_PASSWORD },
	{ "verify", request_verify_password, VERIFY },
	{ "unlocked", leave_if_unlocked, UNLOCK },
	{ "intent", record_intent, WRITES },
	{ "recheck", recheck_user, WRITES },
	{ "judge again", request_judge_again, WRITES },
	{ "write", write_change, WRITES },
	{ NULL, NULL, 0 },
};

/* The server was lost behind the intent and nothing had been sent to it: the user is read on another one, and the intent is written anew for that. Once. */
static bool move_on(struct request *request, enum status status)
{
	bool lost = status == STATUS_DIRECTORY_UNAVAILABLE || status == STATUS_DIRECTORY_TIMEOUT;
	if (!lost || !request->intent || request->wrote || request->moved || request->all->closing || verified_still_valid(request->verified, clock_now_ms() / 1000) != STATUS_OK)
		return false;
	request->moved = request->moving = true;
	for (request->stage = stages; request->stage->run != locate_again; request->stage++)
		continue;
	return true;
}

static void advance(struct request *request)
{
	while (request->stage->run) {
		const struct request_stage *stage = request->stage++;
		if (!(stage->operations & 1u << request->op))
			continue;
		request->pending = false;
		enum status status = stage->run(request);
		if (status != STATUS_OK && !move_on(request, status)) {
			request_finish(request, status);
			return;
		}
		if (request->pending)
			return;
	}
	request_finish(request, STATUS_OK);
}

void request_resume(struct request *request, enum status status)
{
	if (status == STATUS_OK || move_on(request, status))
		advance(request);
	else
		request_finish(request, status);
}

/* What a request is made of ----------------------------------------------------------------------------------------------------------- */

const struct settings *request_settings(const struct request *request)
{
	return *request->all->world.settings;
}

struct request *request_new(struct requests *all)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->all = all;
	request->stage = stages;
	request->started_us = request->marked_us = clock_monotonic_us();
	result_init(&request->result);
	request->result.agent_id = strdup(all->world.identity->agent_id);
	request->result.issuer = strdup(all->world.identity->issuer ? all->world.identity->issuer : "");
	request->next = all->first;
	if (all->first)
		all->first->previous = request;
	all->first = request;
	return request;
}

void request_free(struct request *request)
{
	struct requests *all = request->all;
	if (request->previous)
		request->previous->next = request->next;
	else
		all->first = request->next;
	if (request->next)
		request->next->previous = request->previous;
	if (request->wrote)
		request_remember_write(request);
	secret_claims_clear(&request->secret);
	located_free(request->located);
	verified_free(request->verified);
	result_clear(&request->result);
	free(request->entry.result);
	if (request->timer)
		event_free(request->timer);
	if (request->entered)
		limits_leave(all->world.limits);
	/* Last: the next one of this user starts from in here. */
	if (request->has_turn || request->waits_for_turn)
		limits_end_turn(all->world.limits, &request->turn);
	free(request);
}

void request_mark(struct request *request, enum stage stage)
{
	int64_t now = clock_monotonic_us();
	int64_t *duration = &request->result.duration_us[stage];
	*duration = (*duration < 0 ? 0 : *duration) + now - request->marked_us;
	request->marked_us = now;
}

static void replace_text(char **text, const char *with)
{
	free(*text);
	*text = with && *with ? strdup(with) : NULL;
}

void request_note_answer(struct request *request, const struct directory_answer *answer)
{
	if (!answer)
		return;
	request->result.ldap_result = answer->ldap_result;
	replace_text(&request->result.diagnostic, answer->diagnostic);
	if (answer->server[0])
		replace_text(&request->result.server, answer->server);
}

void request_note_user(struct request *request)
{
	strcpy(request->entry.user_guid, located_account(request->located)->guid);
	replace_text(&request->result.server, located_position(request->located)->server);
}

void request_tell_user(struct request *request)
{
	const struct account *account = located_account(request->located);
	strcpy(request->result.user_guid, account->guid);
	request->result.user_is_entry = account->is_entry;
	if (request->op == OP_RESET || request->op == OP_UNLOCK)
		request->result.was_locked = account->locked;
}

/* Coming in --------------------------------------------------------------------------------------------------------------------------- */

static struct request *find_running(const struct requests *requests, const struct request *same_id_as)
{
	for (struct request *request = requests->first; request; request = request->next)
		if (request != same_id_as && strcmp(request->entry.request_id, same_id_as->entry.request_id) == 0)
			return request;
	return NULL;
}

/* Answered before, and not recorded: the same bytes get the same answer. */
static void answer_again(struct request *request, const struct refusal *refusal)
{
	request->result.code = refusal->code;
	request_send_result(request);
	request_free(request);
}

/* A delivery of an id that is known: true, and it is dealt with. */
static bool handle_known(struct requests *requests, struct request *request)
{
	struct request *running = find_running(requests, request);
	const struct journal_entry *entry = running ? NULL : journal_find(requests->world.journal, request->entry.request_id);
	const struct refusal *refusal = running || entry ? NULL : refusals_find(requests->refusals, request->entry.request_id);
	if (!running && !entry && !refusal)
		return false;
	const uint8_t *known = running ? running->entry.frame_sha256 : entry ? entry->frame_sha256 : refusal->frame_sha256;
	if (!bytes_equal(bytes_of(known, 32), bytes_of(request->entry.frame_sha256, 32))) {
		/* Addressed by the frame: what carried the id first has an outcome of its own, and this is not it. */
		request->result.reason = strdup("jti");
		request->result.request_id[0] = '\0';
		request_finish(request, STATUS_REQUEST_REPLAYED);
		return true;
	}
	if (refusal) {
		answer_again(request, refusal);
		return true;
	}
	/* The same bytes: the outcome, or the news that it is under way and will be told on this endpoint. */
	if (running)
		running->endpoint = request->endpoint;
	if (running && running->settling)
		request_send_result(running);
	/* An acknowledged outcome was on disk before it was told: what waits is the acknowledgement. */
	if (entry && entry->result && (!entry->pending || entry->acknowledged))
		requests->world.send(request->endpoint, entry->result, requests->world.arg);
	request_free(request);
	return true;
}

/* What is at or below it was refused, or had its outcome, and is not remembered any more. */
static int64_t forgotten_exp(const struct requests *requests)
{
	int64_t forgotten = journal_forgotten_exp(requests->world.journal), passed = refusals_passed_exp(requests->refusals);
	forgotten = forgotten > passed ? forgotten : passed;
	return forgotten > requests->former_exp ? forgotten : requests->former_exp;
}

/* "Not yet valid" stays true only while it is remembered, until its time has come and gone; that is not promised for years. */
static bool is_too_far_ahead(const struct request *request, enum status status)
{
	return status == STATUS_REQUEST_NOT_YET_VALID && request->entry.exp > clock_now_ms() / 1000 + AHEAD_MAX_S;
}

static void start(struct request *request, struct bytes payload)
{
	struct requests *requests = request->all;
	const struct settings *settings = *requests->world.settings;
	struct gate_identity gate = {
		.issuer = requests->world.identity->issuer, .agent_id = requests->world.identity->agent_id, .operations = settings_operations(settings),
		.allow_unenforced_policy = settings->allow_unenforced_policy, .not_before = forgotten_exp(requests),
	};
	struct request_ids ids = { 0 };
	const char *reason = NULL;
	enum status status = gate_verify(payload, &gate, clock_now_ms() / 1000, &request->verified, &ids, &reason);
	strcpy(request->entry.request_id, ids.request_id);
	strcpy(request->entry.operation_id, ids.operation_id);
	strcpy(request->result.request_id, ids.request_id);
	strcpy(request->result.operation_id, ids.operation_id);
	request->entry.exp = ids.exp;
	request_mark(request, STAGE_VERIFY);
	if (ids.request_id[0] && handle_known(requests, request))
		return;
	if (status == STATUS_OK) {
		request->claims = verified_claims(request->verified);
		request->op = request->claims->op;
		snprintf(request->entry.op, sizeof request->entry.op, "%s", operation_name(request->op));
		request->entry.sets_password = request_sets_password(request);
		/* Taken in only where it can be finished. */
		status = !journal_writable(requests->world.journal) ? STATUS_AGENT_JOURNAL : limits_enter(requests->world.limits);
		request->entered = status == STATUS_OK;
	} else if (reason)
		request->result.reason = strdup(reason);
	if (is_too_far_ahead(request, status)) {
		log_event(LOG_WARNING, "request.ahead", LOG_FIELDS({ LOG_REQUEST_ID, request->entry.request_id }), "a request is issued more than a day ahead: it gets no answer");
		requests->counts[status]++;
		request_free(request);
		return;
	}
	request_resume(request, status);
}

void requests_handle(struct requests *requests, uint8_t endpoint, struct bytes payload, struct bytes frame, int64_t started_us)
{
	struct request *request = requests->closing ? NULL : request_new(requests);
	if (!request)
		return;
	request->endpoint = endpoint;
	request->started_us = request->marked_us = started_us;
	sha256(frame, request->entry.frame_sha256);
	start(request, payload);
}

static bool take_unverified_token(struct requests *requests)
{
	int64_t now = clock_monotonic_us();
	double tokens = requests->unverified_tokens + (now - requests->unverified_us) / 1e6 * UNVERIFIED_A_SECOND;
	requests->unverified_us = now;
	requests->unverified_tokens = tokens > UNVERIFIED_A_SECOND ? UNVERIFIED_A_SECOND : tokens;
	if (requests->unverified_tokens < 1)
		return false;
	requests->unverified_tokens -= 1;
	return true;
}

void requests_handle_unverified(struct requests *requests, uint8_t endpoint, struct bytes frame, enum jose_reason reason)
{
	struct request *request = !requests->closing && take_unverified_token(requests) ? request_new(requests) : NULL;
	if (!request)
		return;
	request->endpoint = endpoint;
	sha256(frame, request->entry.frame_sha256);
	request->result.reason = strdup(jose_reason_name(reason));
	request_finish(request, STATUS_REQUEST_SIGNATURE);
}

/* Located ----------------------------------------------------------------------------------------------------------------------------- */

/* The domain that the subject names, NULL where it names none. */
static const char *subject_domain(const struct subject *subject)
{
	if (subject->format == SUBJECT_SAM)
		return subject->domain;
	const char *at = subject->format == SUBJECT_UPN ? strrchr(subject->id, '@') : NULL;
	return at ? at + 1 : NULL;
}

static bool is_skewed(int64_t difference_ms)
{
	return difference_ms > CLOCK_SKEW_MS || difference_ms < -CLOCK_SKEW_MS;
}

static enum status choose_directory(struct request *request)
{
	enum status status = realms_choose(request->all->world.realms, request->claims->directory, subject_domain(&request->claims->subject), &request->realm);
	if (status != STATUS_OK)
		return status;
	snprintf(request->entry.directory, sizeof request->entry.directory, "%s", realm_name(request->realm));
	request->result.directory = strdup(realm_name(request->realm));
	struct directory_health health;
	directory_health(realm_directory(request->realm), &health);
	return health.clock_skew_ms != INT64_MIN && is_skewed(health.clock_skew_ms) ? STATUS_AGENT_CLOCK_SKEW : STATUS_OK;
}

static void handle_located(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	request_mark(request, STAGE_LOCATE);
	if (status == STATUS_OK) {
		located_free(request->located);
		request->located = take_located;
		request_note_user(request);
		/* This host's clock may have been set since the server was looked at last. */
		int64_t server_s = located_position(take_located)->current_time_s;
		if (server_s && is_skewed(clock_now_ms() - server_s * 1000))
			status = STATUS_AGENT_CLOCK_SKEW;
	} else {
		located_free(take_located);
		request_note_answer(request, answer);
	}
	request_resume(request, status);
}

static enum status begin_locating(struct request *request, enum locate_by by, const char *id, const char *prefer_server)
{
	struct directory_call *call;
	if (request->all->closing)
		return STATUS_DIRECTORY_UNAVAILABLE;
	request->located_us = clock_monotonic_us();
	request->pending = true;
	return directory_locate(realm_directory(request->realm), by, id, prefer_server, realm_settings(request->realm)->locate_timeout_ms, handle_located, request, &call);
}

static enum status locate_user(struct request *request)
{
	static const enum locate_by by[] = {
		[SUBJECT_OBJECT_GUID] = LOCATE_OBJECT_GUID, [SUBJECT_CONSISTENCY_GUID] = LOCATE_CONSISTENCY_GUID, [SUBJECT_UPN] = LOCATE_UPN, [SUBJECT_SAM] = LOCATE_SAM,
		[SUBJECT_ENTRY_UUID] = LOCATE_ENTRY_UUID, [SUBJECT_UID] = LOCATE_UID,
	};
	return begin_locating(request, by[request->claims->subject.format], request->claims->subject.id, request->claims->prior_server);
}

/* Admitted ---------------------------------------------------------------------------------------------------------------------------- */

static enum status judge_scope(struct request *request)
{
	const struct account *account = located_account(request->located);
	/* Names in the scope that were never looked up: that says nothing about the user. */
	if (!realm_scope_known(request->realm))
		return STATUS_DIRECTORY_UNAVAILABLE;
	enum status status = scope_judge(realm_scope(request->realm), account, request->why, sizeof request->why);
	if (status != STATUS_OK)
		return status;
	request->why[0] = 0;
	request_tell_user(request);
	return STATUS_OK;
}

static enum status judge_state(struct request *request)
{
	const struct account *account = located_account(request->located);
	enum status status = scope_judge_state(realm_scope(request->realm), account, request->op != OP_UNLOCK, request->claims->must_change, clock_now_ms() / 1000);
	/* A change does not unlock, and what is tried against a locked account is not even compared. */
	return status == STATUS_OK && request->op == OP_CHANGE && account->locked ? STATUS_USER_LOCKED : status;
}

static void handle_turn(void *arg)
{
	struct request *request = arg;
	request->waits_for_turn = false;
	request->has_turn = true;
	request_resume(request, request->all->closing ? STATUS_DIRECTORY_UNAVAILABLE : STATUS_OK);
}

static bool is_settled_now(const struct request *request)
{
	for (const struct request *other = request->all->first; other; other = other->next)
		if (other->settling && strcmp(other->entry.user_guid, request->entry.user_guid) == 0)
			return true;
	return false;
}

static enum status take_turn(struct request *request)
{
	if (is_settled_now(request))
		return STATUS_USER_BUSY;
	request->turn.granted = handle_turn;
	request->turn.arg = request;
	bool now = false;
	enum status status = limits_take_turn(request->all->world.limits, request->entry.user_guid, &request->turn, &now);
	request->has_turn = status == STATUS_OK && now;
	request->waits_for_turn = request->pending = status == STATUS_OK && !now;
	return status;
}

static enum status locate_again(struct request *request)
{
	const char *last_server = request_server_ahead(request);
	if (!request_written_since(request) && !request->moving && (!last_server || request->sought))
		return STATUS_OK;
	const char *prefer = request->moving ? NULL : last_server ? last_server : located_position(request->located)->server;
	request->moving = false;
	request->sought = true;
	char guid[UUID_SIZE];
	strcpy(guid, request->entry.user_guid);
	return begin_locating(request, realm_identity(request->realm), guid, prefer);
}

static enum status admit_write(struct request *request)
{
	if (request->admitted)
		return STATUS_OK;
	enum status status = limits_admit(request->all->world.limits, request->entry.user_guid, request_sets_password(request), clock_now_ms(), &request->result.retry_after);
	request->admitted = status == STATUS_OK;
	return status;
}

/* Decrypted --------------------------------------------------------------------------------------------------------------------------- */

static enum status decrypt_secret(struct request *request)
{
	if (request->secret.operation_id[0])
		return STATUS_OK;
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	struct jose_key *const keys[] = { request->all->world.identity->decryption, NULL };
	request->marked_us = clock_monotonic_us();
	enum jose_reason reason = jose_decrypt(bytes_of_string(request->claims->secret), keys, &plaintext);
	if (reason != JOSE_OK) {
		request->result.reason = strdup(jose_reason_name(reason));
		return reason == JOSE_INTERNAL ? STATUS_AGENT_INTERNAL : STATUS_REQUEST_UNDECRYPTABLE;
	}
	const char *member = NULL;
	enum status status = secret_claims_parse(&plaintext, request->claims, &request->secret, &member);
	if (status == STATUS_OK && NEW_PASSWORD & 1u << request->op) {
		member = "new_password";
		status = policy_password_form(secret_bytes(&request->secret.new_password));
	}
	if (status == STATUS_OK && OLD_PASSWORD & 1u << request->op) {
		member = "old_password";
		status = policy_password_form(secret_bytes(&request->secret.old_password));
	}
	bool is_nfc = true;
	if (status == STATUS_OK && NEW_PASSWORD & 1u << request->op)
		status = nfc_check(secret_bytes(&request->secret.new_password), &is_nfc);
	request->result.warnings |= is_nfc ? 0 : WARNING_PASSWORD_NOT_NFC;
	if (status != STATUS_OK && member)
		request->result.reason = strdup(member);
	request_mark(request, STAGE_DECRYPT);
	return status;
}

/* Judged ------------------------------------------------------------------------------------------------------------------------------ */

static enum status judge_password(struct request *request)
{
	const struct account *account = located_account(request->located);
	struct result *result = &request->result;
	if (request->claims->enforce_policy && !request_policy_enforced(request)) {
		if (realm_settings(request->realm)->policy_hints == POLICY_HINTS_REQUIRE)
			return STATUS_DIRECTORY_NO_POLICY_CONTROL;
		result->warnings |= WARNING_POLICY_NOT_ENFORCED;
	}
	if (account->policy.source == POLICY_UNKNOWN)
		result->warnings |= WARNING_POLICY_UNREADABLE;
	return policy_judge(&account->policy, account, secret_bytes(&request->secret.new_password), request_policy_enforced(request), clock_now_ms() / 1000, result->rules, &result->rule_count);
}

static enum status answer_check(struct request *request)
{
	return STATUS_PLAUSIBLE;
}

/* Writing 0 over 0 is no write: an unlock of an account that is not locked is done. */
static enum status leave_if_unlocked(struct request *request)
{
	if (!located_account(request->located)->lockout_time_set)
		request->stage = &stages[sizeof stages / sizeof stages[0] - 1];
	return STATUS_OK;
}

/* Intent ------------------------------------------------------------------------------------------------------------------------------ */

static void handle_intent(enum status status, void *arg)
{
	struct request *request = arg;
	request->intent |= status == STATUS_OK;
	request_mark(request, STAGE_INTENT);
	/* Closing: the intent stays, and is settled at the next start. */
	if (!request->all->closing)
		request_resume(request, status);
}

static enum status record_intent(struct request *request)
{
	const struct server_position *position = located_position(request->located);
	const struct replication_record *record = located_password_record(request->located);
	struct journal_entry *entry = &request->entry;
	entry->state = JOURNAL_INTENT;
	snprintf(entry->server, sizeof entry->server, "%s", position->server);
	memcpy(entry->invocation_id, position->invocation_id, sizeof entry->invocation_id);
	entry->highest_committed_usn = position->highest_committed_usn;
	entry->password_version = record->known ? record->version : 0;
	entry->password_originating_usn = record->known ? record->originating_usn : 0;
	memset(entry->password_originator, 0, sizeof entry->password_originator);
	if (record->known)
		memcpy(entry->password_originator, record->originator, sizeof entry->password_originator);
	request->record_known = record->known;
	request->record_time_s = record->time_s;
	request->server_time_s = position->current_time_s;
	entry->intent_at_ms = clock_now_ms();
	request->marked_us = clock_monotonic_us();
	enum status status = journal_intent(request->all->world.journal, entry, handle_intent, request);
	request->pending = status == STATUS_OK;
	return status;
}

/* Outcome ----------------------------------------------------------------------------------------------------------------------------- */

static void handle_recheck(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	if (status != STATUS_OK)
		request_note_answer(request, answer);
	request_resume(request, status);
}

static enum status recheck_user(struct request *request)
{
	struct directory_call *call;
	request->pending = true;
	return directory_recheck(request->located, realm_settings(request->realm)->locate_timeout_ms, handle_recheck, request, &call);
}

enum status request_judge_again(struct request *request)
{
	if (strcmp(located_account(request->located)->guid, request->entry.user_guid) != 0)
		return STATUS_USER_NOT_FOUND;
	enum status status = verified_still_valid(request->verified, clock_now_ms() / 1000);
	if (status == STATUS_OK)
		status = judge_scope(request);
	return status == STATUS_OK ? judge_state(request) : status;
}

static void handle_written(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	request_mark(request, STAGE_WRITE);
	request_note_answer(request, answer);
	request->wrote = answer ? answer->sent : status == STATUS_OK;
	request->guessed_wrong = request_was_wrong(status, answer);
	if (status == STATUS_OK)
		request_look_after(request, request->located);
	/* Everybody may change a password whose old one he knows, but where that is denied to the user. */
	if (status == STATUS_DIRECTORY_DENIED && request->op == OP_CHANGE && located_account(request->located)->cannot_change)
		status = STATUS_USER_CANNOT_CHANGE;
	if (status == STATUS_OK && answer->incomplete)
		request->result.warnings |= WARNING_MUST_CHANGE_NOT_SET;
	if (status >= STATUS_POLICY_TOO_SHORT && status <= STATUS_POLICY_REJECTED)
		request_explain(request, status);
	else if (status != STATUS_OK && answer && answer->sent && !answer->answered)
		request_settle(request, status);
	else
		request_resume(request, status);
}

struct directory_change request_change(const struct request *request)
{
	const struct account *account = located_account(request->located);
	return (struct directory_change){
		.set_password = request_sets_password(request), .password = secret_bytes(&request->secret.new_password), .old_password = secret_bytes(&request->secret.old_password), .must_change = request->claims->must_change,
		.clear_lockout = (request->op == OP_UNLOCK || (request->op == OP_RESET && request->claims->unlock)) && account->lockout_time_set, .enforce_policy = request->claims->enforce_policy && request->op == OP_RESET,
	};
}

static enum status write_change(struct request *request)
{
	struct directory_change change = request_change(request);
	struct directory_call *call;
	/* The other agent or an administrator was quicker. */
	if (!change.set_password && !change.clear_lockout)
		return STATUS_OK;
	request->pending = true;
	return directory_write(request->located, &change, realm_settings(request->realm)->write_timeout_ms, handle_written, request, &call);
}

/* All of them ------------------------------------------------------------------------------------------------------------------------- */

struct requests *requests_new(const struct requests_world *world)
{
	struct requests *requests = calloc(1, sizeof *requests);
	if (requests)
		requests->refusals = refusals_new(REFUSALS_MAX);
	if (requests && !requests->refusals) {
		free(requests);
		return NULL;
	}
	if (requests) {
		requests->world = *world;
		requests->unverified_us = clock_monotonic_us();
		requests->unverified_tokens = UNVERIFIED_A_SECOND;
	}
	return requests;
}

void requests_close(struct requests *requests)
{
	requests->closing = true;
}

void requests_free(struct requests *requests)
{
	if (!requests)
		return;
	requests->closing = true;
	/* Waiting ones first, so that no turn is granted to them by the end of another. */
	for (struct request *request = requests->first, *next; request; request = next) {
		next = request->next;
		if (request->waits_for_turn)
			request_free(request);
	}
	while (requests->first)
		request_free(requests->first);
	refusals_free(requests->refusals);
	free(requests);
}

static bool count_write(const struct journal_entry *entry, void *arg)
{
	struct requests *requests = arg;
	/* A time that lies ahead is a clock's fault, and lets nothing off. */
	int64_t resumed_ms = journal_number(requests->world.journal, REQUESTS_RESUMED_MS, 0);
	bool before = entry->outcome_at_ms <= resumed_ms && resumed_ms <= clock_now_ms();
	if (entry->state == JOURNAL_OUTCOME && strcmp(entry->code, status_code(STATUS_CREDENTIAL_WRONG)) == 0)
		limits_restore_guess(requests->world.limits, entry->user_guid, entry->outcome_at_ms);
	if (entry->counts && entry->state == JOURNAL_OUTCOME && !before)
		limits_restore(requests->world.limits, entry->user_guid, entry->sets_password, entry->outcome_at_ms);
	return true;
}

void requests_restore(struct requests *requests)
{
	requests->former_exp = journal_number(requests->world.journal, REFUSED_EXP, 0);
	journal_each(requests->world.journal, count_write, requests);
	requests_settle_journal(requests);
}

unsigned requests_settling(const struct requests *requests)
{
	unsigned count = 0;
	for (const struct request *request = requests->first; request; request = request->next)
		count += request->settling;
	return count;
}

unsigned requests_running(const struct requests *requests)
{
	unsigned count = 0;
	for (const struct request *request = requests->first; request; request = request->next)
		count += !request->settling;
	return count;
}

uint64_t requests_count(const struct requests *requests, enum status code) { return requests->counts[code]; }
int64_t requests_last_ms(const struct requests *requests) { return requests->last_ms; }
