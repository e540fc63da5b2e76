/* POST /v1/agents: a ticket and a proof of the new keys against an agent id (proto/README.md section 4). */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "service/server.h"

#define TICKET_CHARACTERS 91
#define MAX_LIFETIME_S 300
#define REFUSALS_AT_ONCE 30
#define REFUSALS_A_SECOND 0.5

struct enroll_job {
	struct store_enrollment store;
	struct server *server;
	struct exchange *exchange;
};

static void job_free(struct enroll_job *job)
{
	agent_row_clear(&job->store.agent);
	free(job);
}

static bool may_try(struct server *server)
{
	int64_t now = clock_monotonic_us();
	server->enroll_tokens += (double)(now - server->enroll_refilled_us) / 1e6 * REFUSALS_A_SECOND;
	if (server->enroll_tokens > REFUSALS_AT_ONCE)
		server->enroll_tokens = REFUSALS_AT_ONCE;
	server->enroll_refilled_us = now;
	return server->enroll_tokens >= 1;
}

static void refuse(struct server *server, struct exchange *exchange, int http_status, const char *detail)
{
	if (server->enroll_tokens >= 1)
		server->enroll_tokens -= 1;
	exchange_problem(exchange, http_status, NULL, detail);
}

/* Strangers who use up what may be refused must not keep out who has a ticket. Believed for nothing else. */
static bool has_good_ticket(const struct server *server, struct bytes jws)
{
	char kid[JOSE_KID_SIZE];
	json_t *unverified = NULL;
	uint8_t hash[32];
	bool good = false;
	if (jose_peek_unverified(jws, TYP_ENROLL, kid, &unverified) != JOSE_OK)
		return false;
	const char *ticket = json_string_value(json_object_get(unverified, "ticket"));
	if (ticket != NULL)
		sha256(bytes_of_string(ticket), hash);
	for (size_t i = 0; ticket != NULL && i < server->tickets.count; i++)
		good |= bytes_equal(bytes_of(server->tickets.items[i], 32), bytes_of(hash, 32));
	json_decref(unverified);
	return good;
}

/* The one message whose key comes from its own payload: it proves that the sender holds that key, and nothing else. */
static enum jose_reason verify(struct bytes jws, char **ret_payload, size_t *ret_size)
{
	static const char *const typs[] = { TYP_ENROLL, NULL };
	char kid[JOSE_KID_SIZE];
	json_t *unverified = NULL;
	struct jose_key *key = NULL;
	enum jose_reason reason = jose_peek_unverified(jws, TYP_ENROLL, kid, &unverified);
	if (reason != JOSE_OK)
		return reason;
	enum status status = jose_key_from_jwk(json_object_get(unverified, "signing_key"), JOSE_SIGN, false, &key);
	json_decref(unverified);
	if (status != STATUS_OK)
		return JOSE_KID;
	struct jose_keys *keys = jose_keys_new();
	if (keys == NULL || jose_keys_add(keys, key) != STATUS_OK) {
		jose_key_free(key);
		jose_keys_free(keys);
		return JOSE_INTERNAL;
	}
	/* A kid that is not this key's thumbprint is not found. */
	reason = jose_verify(jws, typs, keys, ret_payload, ret_size, NULL, NULL);
	jose_keys_free(keys);
	return reason;
}

static size_t count_characters(struct bytes text)
{
	size_t count = 0;
	for (size_t offset = 0; offset < text.size; count++)
		utf8_next(text, &offset);
	return count;
}

static const char *judge(const struct server *server, const struct enroll *enroll, int64_t now)
{
	size_t characters = count_characters(bytes_of_string(enroll->name));
	if (strcmp(enroll->issuer, server->settings->issuer) != 0)
		return "aud is not this issuer";
	if (enroll->exp <= enroll->iat || enroll->exp - enroll->iat > MAX_LIFETIME_S)
		return "exp must lie at most 300 s behind iat";
	if (enroll->iat > now + CLOCK_SKEW_S || enroll->exp + CLOCK_SKEW_S < now)
		return "iat and exp do not fit this service's clock";
	if (characters < 1 || characters > 64)
		return "name must have 1 to 64 characters";
	if (strcmp(jose_key_id(enroll->signing_key), jose_key_id(enroll->decryption_key)) == 0)
		return "signing_key and decryption_key must differ";
	return NULL;
}

static char *jwk_text(const struct jose_key *key)
{
	json_t *jwk = jose_key_public_jwk(key);
	char *text = jwk != NULL ? json_dumps(jwk, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(jwk);
	return text;
}

static json_t *answer(const struct server *server, const char *agent_id)
{
	json_t *endpoints = json_array();
	for (size_t i = 0; i < server->settings->channel_endpoints.count; i++)
		json_array_append_new(endpoints, json_string(server->settings->channel_endpoints.items[i]));
	return json_pack("{s:s, s:s, s:o, s:s, s:o}", "agent_id", agent_id, "issuer", server->settings->issuer, "root_key", jose_key_public_jwk(server->keys.root),
		"key_set", server->keys.key_set, "channel_endpoints", endpoints);
}

static void log_enrolled(const struct enroll_job *job)
{
	const struct agent *agent = hub_find(job->server->hub, job->store.agent.agent_id);
	log_event(LOG_NOTICE, "agent.enrolled", LOG_FIELDS({ LOG_AGENT_ID, job->store.agent.agent_id }, { "peer", exchange_peer(job->exchange) },
		{ "signing_key", agent->signing_kid }, { "decryption_key", jose_key_id(agent->decryption) }),
			"%s is enrolled: compare the thumbprints with those it shows", job->store.agent.name);
}

static void on_enrolled(enum status status, void *arg)
{
	struct enroll_job *job = arg;
	struct server *server = job->server;
	const struct agent_rows one = { &job->store.agent, 1 };
	if (status == STATUS_OK && !job->store.accepted) {
		refuse(server, job->exchange, 401, "the ticket is not good");
	} else if (status != STATUS_OK || !hub_update(server->hub, &one)) {
		exchange_problem(job->exchange, 503, status != STATUS_OK ? status_code(status) : NULL, "the enrolment could not be recorded");
	} else {
		log_enrolled(job);
		exchange_answer(job->exchange, 201, answer(server, job->store.agent.agent_id));
	}
	job_free(job);
}

static struct enroll_job *job_new(struct server *server, struct exchange *exchange, const struct enroll *enroll, int64_t now)
{
	struct enroll_job *job = calloc(1, sizeof *job);
	if (job == NULL)
		return NULL;
	job->server = server;
	job->exchange = exchange;
	job->store.now = now;
	sha256(bytes_of_string(enroll->ticket), job->store.ticket);
	struct agent_row *row = &job->store.agent;
	uuid_random(row->agent_id);
	row->name = strdup(enroll->name);
	row->signing_key = jwk_text(enroll->signing_key);
	row->decryption_key = jwk_text(enroll->decryption_key);
	row->enrolled_at = now;
	if (row->name == NULL || row->signing_key == NULL || row->decryption_key == NULL) {
		job_free(job);
		return NULL;
	}
	return job;
}

static void submit(struct server *server, struct exchange *exchange, const struct enroll *enroll, int64_t now)
{
	struct enroll_job *job = job_new(server, exchange, enroll, now);
	if (job != NULL && database_submit(server->database, store_enroll, on_enrolled, job) == STATUS_OK)
		return;
	if (job != NULL)
		job_free(job);
	exchange_problem(exchange, 503, status_code(STATUS_SERVICE_OVERLOADED), "try again");
}

void enroll_handle(struct exchange *exchange, void *arg)
{
	struct server *server = arg;
	AUTO_FREE char *payload = NULL;
	size_t size = 0;
	struct enroll enroll = { 0 };
	const char *member = "", *fault = NULL;
	char detail[96];
	int64_t now = clock_now_ms() / 1000;
	if (!may_try(server) && !has_good_ticket(server, exchange_body(exchange))) {
		exchange_add_header(exchange, "Retry-After", "10");
		exchange_problem(exchange, 429, NULL, "too many enrolments were refused");
		return;
	}
	enum jose_reason reason = verify(exchange_body(exchange), &payload, &size);
	if (reason != JOSE_OK) {
		snprintf(detail, sizeof detail, "the message cannot be verified: %s", jose_reason_name(reason));
		fault = detail;
	} else if (enroll_parse(bytes_of(payload, size), &enroll, &member) != STATUS_OK) {
		snprintf(detail, sizeof detail, "malformed member: %s", member);
		fault = detail;
	} else {
		fault = judge(server, &enroll, now);
	}
	if (fault != NULL)
		refuse(server, exchange, 400, fault);
	else if (strlen(enroll.ticket) != TICKET_CHARACTERS)
		refuse(server, exchange, 401, "the ticket is not good");
	else
		submit(server, exchange, &enroll, now);
	enroll_clear(&enroll);
}
