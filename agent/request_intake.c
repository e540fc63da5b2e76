/* How requests come in: verified, told from those that are known, and let in; or refused without having been verified. */
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"

#define AHEAD_MAX_S 86400

static struct request *find_running(const struct requests *requests, const struct request *same_id_as)
{
	for (struct request *request = requests->first; request; request = request->next)
		if (request != same_id_as && strcmp(request->entry.request_id, same_id_as->entry.request_id) == 0)
			return request;
	return NULL;
}

/* Two good signatures of one message are easily made of one (proto/README.md 2.1): what is signed is what was said. The service knows its frame by all of it. */
static void hash_frame(struct bytes frame, uint8_t ret_signed[32], uint8_t ret_whole[32])
{
	sha256(jose_signed_part(frame), ret_signed);
	sha256(frame, ret_whole);
}

/* Rows that an older version has left hold the hash of the whole frame. */
static bool is_hash_of(const uint8_t known[32], const uint8_t signed_sha256[32], const uint8_t whole_sha256[32])
{
	return memcmp(known, signed_sha256, 32) == 0 || memcmp(known, whole_sha256, 32) == 0;
}

/* Answered before, and not recorded: the same bytes get the same answer. */
static void answer_again(struct request *request, const struct refusal *refusal)
{
	request->result.code = refusal->code;
	request_send_result(request);
	request_free(request);
}

/* Once it may be told. An acknowledged outcome was on disk before it was told: what waits is the acknowledgement. */
static void tell_outcome(struct requests *requests, uint8_t endpoint, const struct journal_entry *entry)
{
	if (entry->result && (!entry->pending || entry->acknowledged))
		requests->world.send(endpoint, entry->result, requests->world.arg);
}

/* A delivery of an id that is known: true, and it is dealt with. */
static bool handle_known(struct requests *requests, struct request *request, struct bytes payload, const struct gate_identity *gate)
{
	struct request *running = find_running(requests, request);
	const struct journal_entry *entry = running ? NULL : journal_find(requests->world.journal, request->entry.request_id);
	const struct refusal *refusal = running || entry ? NULL : refusals_find(requests->refusals, request->entry.request_id);
	if (!running && !entry && !refusal)
		return false;
	const uint8_t *known = running ? running->entry.frame_sha256 : entry ? entry->frame_sha256 : refusal->frame_sha256;
	if (!is_hash_of(known, request->entry.frame_sha256, request->frame_sha256)) {
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
	if (running && running->settling) {
		running->endpoint = request->endpoint;
		request_adopt(running, payload, gate);
		request_send_result(running);
	}
	if (running)
		request_delivered_again(running, request->endpoint);
	if (entry)
		tell_outcome(requests, request->endpoint, entry);
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
	if (status == STATUS_REQUEST_EXPIRED)
		status = request_judge_expired(request, &ids);
	if (ids.request_id[0] && handle_known(requests, request, payload, &gate))
		return;
	if (status == STATUS_OK) {
		request->claims = verified_claims(request->verified);
		request->op = request->claims->op;
		snprintf(request->entry.op, sizeof request->entry.op, "%s", operation_name(request->op));
		request->entry.sets_password = request_sets_password(request);
		/* Taken in only where it can be finished. */
		status = !journal_writable(requests->world.journal) ? STATUS_AGENT_JOURNAL : limits_enter(requests->world.limits);
		request->entered = status == STATUS_OK;
		CRASH_POINT(ADMITTED);
	} else if (reason && status != STATUS_AGENT_INTERNAL && status != STATUS_OUTCOME_UNKNOWN)
		request->result.reason = strdup(reason);
	if (is_too_far_ahead(request, status)) {
		if (log_allowed(&requests->lines))
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
	request->came_us = clock_boottime_us();
	hash_frame(frame, request->entry.frame_sha256, request->frame_sha256);
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

struct sought {
	uint8_t signed_sha256[32], whole_sha256[32];
	const struct journal_entry *entry;
};

static bool is_another(const struct journal_entry *entry, void *arg)
{
	struct sought *sought = arg;
	if (is_hash_of(entry->frame_sha256, sought->signed_sha256, sought->whole_sha256))
		sought->entry = entry;
	return !sought->entry;
}

/* A frame that was verified and taken in, by a key that is believed no more: "not acted on" would be false of it. It tells what is known and sets nothing going, for anyone may bring it.
 * What was refused without being recorded is not looked for: to be refused once more is no lie. */
static bool is_known_frame(struct requests *requests, uint8_t endpoint, struct bytes frame)
{
	struct sought sought = { 0 };
	hash_frame(frame, sought.signed_sha256, sought.whole_sha256);
	for (const struct request *request = requests->first; request; request = request->next)
		if (is_hash_of(request->entry.frame_sha256, sought.signed_sha256, sought.whole_sha256))
			return true;
	journal_each(requests->world.journal, is_another, &sought);
	if (sought.entry)
		tell_outcome(requests, endpoint, sought.entry);
	return sought.entry != NULL;
}

void requests_handle_unverified(struct requests *requests, uint8_t endpoint, struct bytes frame, enum jose_reason reason)
{
	if (requests->closing || !take_unverified_token(requests) || is_known_frame(requests, endpoint, frame))
		return;
	struct request *request = request_new(requests);
	if (!request)
		return;
	request->endpoint = endpoint;
	hash_frame(frame, request->entry.frame_sha256, request->frame_sha256);
	/* That memory was out says nothing of the signature, and nothing of what an earlier delivery of the same bytes has done. */
	if (reason != JOSE_INTERNAL)
		request->result.reason = strdup(jose_reason_name(reason));
	request_finish(request, reason == JOSE_INTERNAL ? STATUS_AGENT_INTERNAL : STATUS_REQUEST_SIGNATURE);
}
