#include <stdio.h>
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"

#define RECORD_AGAIN_S 5

/* Sending ----------------------------------------------------------------------------------------------------------------------------- */

void request_send_result(struct request *request)
{
	struct requests *all = request->all;
	AUTO_FREE char *payload = result_build(&request->result);
	if (payload)
		all->world.send(request->endpoint, payload, all->world.arg);
}

/* Why, in words, as far as the code alone does not say it. The user is known by his GUID: texts of the directory are cut before a name. */
static void explain(const struct request *request, char *why, size_t capacity)
{
	const struct result *result = &request->result;
	char at[CLOCK_TEXT_SIZE];
	snprintf(why, capacity, "%s", request->why);
	for (size_t i = 0; !*why && result->code == STATUS_POLICY_TOO_RECENT && i < result->rule_count; i++)
		if (result->rules[i].kind == RULE_MIN_AGE && result->rules[i].given < INT64_MAX / 1000) {
			clock_format(result->rules[i].given * 1000, at);
			snprintf(why, capacity, "possible from %s on", at);
		}
	if (!*why && result->code == STATUS_DIRECTORY_NO_POLICY_CONTROL)
		snprintf(why, capacity, "%s", status_admin_text(result->code));
	if (!*why && status_outcome(result->code) != OUTCOME_APPLIED && result->diagnostic) {
		const char *name = strcasestr(result->diagnostic, "CN=");
		snprintf(why, capacity, "%.*s%s", name ? (int)(name - result->diagnostic) : (int)strlen(result->diagnostic), result->diagnostic, name ? "…" : "");
	}
}

static void write_line(const struct request *request)
{
	const struct result *result = &request->result;
	char ldap_result[16], duration[24];
	snprintf(ldap_result, sizeof ldap_result, "%d", result->ldap_result);
	snprintf(duration, sizeof duration, "%lld", (long long)((clock_monotonic_us() - request->started_us) / 1000));
	const char *code = status_code(result->code);
	char why[600];
	explain(request, why, sizeof why);
	/* Windows' texts begin with eight hexadecimal digits: its own code. */
	char ad_code[9] = "";
	if (result->diagnostic && strspn(result->diagnostic, "0123456789ABCDEFabcdef") == 8)
		memcpy(ad_code, result->diagnostic, 8);
	log_event(status_level(result->code), "request.end",
	          LOG_FIELDS({ LOG_OPERATION_ID, result->operation_id[0] ? result->operation_id : NULL }, { LOG_REQUEST_ID, result->request_id[0] ? result->request_id : NULL },
	                     { LOG_OP, request->entry.op[0] ? request->entry.op : NULL }, { LOG_STATUS, outcome_name(status_outcome(result->code)) }, { LOG_CODE, code },
	                     { LOG_USER_GUID, request->entry.user_guid[0] ? request->entry.user_guid : NULL }, { LOG_SERVER, result->server }, { LOG_LDAP_RESULT, result->ldap_result >= 0 ? ldap_result : NULL },
	                     { LOG_AD_CODE, ad_code[0] ? ad_code : NULL }, { "reason", result->reason ? result->reason : request->why[0] ? request->why : NULL }, { "frame_sha256", result->frame_sha256[0] ? result->frame_sha256 : NULL },
	                     { LOG_DURATION_MS, duration }),
	          "%s %s%s%s", request->entry.op[0] ? request->entry.op : "frame", code, *why ? ": " : "", why);
}

void request_leave(struct request *request)
{
	struct requests *all = request->all;
	all->counts[request->result.code]++;
	all->last_ms = clock_now_ms();
	request_send_result(request);
	write_line(request);
	request_free(request);
	all->world.ended(all->world.arg);
}

/* Recording --------------------------------------------------------------------------------------------------------------------------- */

/* Addressed by its frame: there is nothing to remember it by. */
static bool is_anonymous(const struct request *request)
{
	return !request->result.request_id[0];
}

/* Not taken in: nothing of these is in the journal. */
static bool is_recorded(const struct request *request)
{
	return request->intent || (request->result.code != STATUS_AGENT_OVERLOADED && request->result.code != STATUS_AGENT_JOURNAL);
}

/* Nothing was done, and that is told only where it stays true: the same bytes may come again. Else the service hears nothing and delivers the request again. */
static void leave_unrecorded(struct request *request)
{
	struct requests *all = request->all;
	/* An answer that has more to it than its code cannot be given twice. */
	bool repeatable = !request->result.account && !request->result.policy;
	struct refusal refusal = { .exp = request->entry.exp, .code = repeatable ? request->result.code : STATUS_AGENT_OVERLOADED };
	strcpy(refusal.request_id, request->entry.request_id);
	memcpy(refusal.frame_sha256, request->entry.frame_sha256, sizeof refusal.frame_sha256);
	/* The number that keeps one out which is hours ahead would keep everybody out for so long. */
	if (request->entry.exp <= clock_now_ms() / 1000 + REQUEST_EXP_MAX_S && request_withhold(request, &refusal))
		return;
	all->counts[request->result.code]++;
	request_free(request);
	all->world.ended(all->world.arg);
}

static void record(struct request *request);

static void record_again(evutil_socket_t fd, short what, void *arg)
{
	record(arg);
}

/* The outcome cannot be written. Behind an intent it is tried until it can: nothing of it may be told before. Else nothing was done, and that is told. */
static void handle_unrecorded(struct request *request)
{
	if (request->all->closing)
		return; /* requests_free takes it; the journal settles it at the next start, or the service delivers it again */
	if (request->intent) {
		if (!request->unwritten_told)
			log_event(LOG_CRIT, "journal.unwritten", LOG_FIELDS({ LOG_OPERATION_ID, request->entry.operation_id }, { LOG_REQUEST_ID, request->entry.request_id }),
			          "an outcome cannot be written to the journal; it is tried again every %d s, and told when it is", RECORD_AGAIN_S);
		request->unwritten_told = true;
		request_wake(request, RECORD_AGAIN_S * 1000, record_again);
		return;
	}
	/* What came too late is so by time alone; and that nothing was done cannot be told of what was done before, or may have been. */
	if (request_sets_password(request) && status_outcome(request->result.code) == OUTCOME_APPLIED)
		request->result.code = STATUS_OUTCOME_UNKNOWN;
	if (request->result.code != STATUS_REQUEST_EXPIRED && request->result.code != STATUS_OUTCOME_UNKNOWN)
		request->result.code = STATUS_AGENT_JOURNAL;
	leave_unrecorded(request);
}

static void handle_recorded(enum status status, void *arg)
{
	struct request *request = arg;
	if (status != STATUS_OK) {
		handle_unrecorded(request);
		return;
	}
	request_mark(request, STAGE_RECORD);
	CRASH_POINT(OUTCOME_RECORDED);
	request->result.duration_us[STAGE_TOTAL] = clock_monotonic_us() - request->started_us;
	request_leave(request);
}

static void record(struct request *request)
{
	struct journal_entry *entry = &request->entry;
	entry->state = JOURNAL_OUTCOME;
	entry->outcome_at_ms = clock_now_ms();
	entry->outcome_us = clock_monotonic_us();
	snprintf(entry->code, sizeof entry->code, "%s", status_code(request->result.code));
	free(entry->result);
	entry->result = result_build(&request->result);
	if (!entry->server[0] && request->result.server)
		snprintf(entry->server, sizeof entry->server, "%s", request->result.server);
	request->marked_us = clock_monotonic_us();
	enum status status = entry->result ? journal_outcome(request->all->world.journal, entry, handle_recorded, request) : STATUS_AGENT_INTERNAL;
	CRASH_POINT(OUTCOME_GIVEN);
	/* No room for one more refusal: it stands, and is remembered otherwise. */
	if (status == STATUS_AGENT_OVERLOADED && !request->intent)
		leave_unrecorded(request);
	else if (status != STATUS_OK)
		handle_unrecorded(request);
}

/* The tail ---------------------------------------------------------------------------------------------------------------------------- */

/* A lost answer counts as a wrong password, unless the truth turned out to be a write. */
static void settle_guess(struct request *request)
{
	bool wrong = request->guessed_wrong && status_outcome(request->result.code) != OUTCOME_APPLIED;
	if (request->guesses)
		limits_settle_guess(request->all->world.limits, request->entry.user_guid, wrong, clock_now_ms());
	if (request->guesses && wrong)
		request->entry.wrong_at_ms = clock_now_ms();
	request->guesses = false;
}

/* What was not done is given back to the limits; what was, or may have been, counts. */
static void count_for_limits(struct request *request, enum status status)
{
	enum outcome outcome = status_outcome(status);
	bool counts = request->wrote && (outcome == OUTCOME_APPLIED || outcome == OUTCOME_UNKNOWN);
	struct limits *limits = request->all->world.limits;
	if (request->admitted)
		limits_settle(limits, request->entry.user_guid, request_sets_password(request), counts, clock_now_ms());
	else if (counts) /* found in the journal at the start */
		limits_restore(limits, request->entry.user_guid, request->entry.sets_password, clock_now_ms());
	request->admitted = false;
	request->entry.counts = counts;
	settle_guess(request);
}

void request_finish(struct request *request, enum status status)
{
	secret_claims_clear(&request->secret);
	located_free(request->located);
	request->located = NULL;
	/* Settling's: it would tell of an end that is not on disk yet. */
	request_stop_timer(request);
	/* Closing: what has not been begun is forgotten; the service delivers it again. */
	if (request->all->closing && !request->intent) {
		if (request->admitted)
			limits_settle(request->all->world.limits, request->entry.user_guid, request_sets_password(request), false, clock_now_ms());
		settle_guess(request);
		request_free(request);
		return;
	}
	request->settling = false;
	status = request_judge_end(request, status);
	request->result.code = status;
	/* Without an id it can be addressed by the frame alone. */
	if (!request->result.request_id[0])
		hex_encode(bytes_of(request->frame_sha256, 32), request->result.frame_sha256);
	count_for_limits(request, status);
	request->result.duration_us[STAGE_TOTAL] = clock_monotonic_us() - request->started_us;
	if (is_anonymous(request))
		request_leave(request);
	else if (is_recorded(request))
		record(request);
	else
		leave_unrecorded(request);
}
