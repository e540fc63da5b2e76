/* The routes, for agents and for portals and scripts (proto/README.md sections 3 and 9). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "service/content.h"
#include "service/question.h"
#include "service/server.h"

/* API keys --------------------------------------------------------------------------------------------------------------------------- */

struct key_job {
	struct store_api_key store;
	struct server *server;
	struct exchange *exchange;
	int64_t store_version;
};

/* The row of a key that is good. */
static struct api_rate *rate_of(struct server *server, const uint8_t hash[32])
{
	struct api_rate *oldest = &server->rates[0];
	for (unsigned i = 0; i < KNOWN_KEYS; i++) {
		struct api_rate *rate = &server->rates[i];
		if (rate->refilled_us != 0 && bytes_equal(bytes_of(rate->hash, 32), bytes_of(hash, 32)))
			return rate;
		if (rate->refilled_us < oldest->refilled_us)
			oldest = rate;
	}
	memcpy(oldest->hash, hash, 32);
	oldest->tokens = 1e9;
	oldest->refilled_us = 1;
	return oldest;
}

/* 0, or after how many seconds it may ask again. */
static unsigned throttle(struct server *server, const uint8_t hash[32])
{
	double a_second = (double)server->settings->api_requests;
	if (a_second == 0)
		return 0;
	struct api_rate *rate = rate_of(server, hash);
	int64_t now = clock_monotonic_us();
	rate->tokens = fmin(rate->tokens + (double)(now - rate->refilled_us) / 1e6 * a_second, 2 * a_second);
	rate->refilled_us = now;
	if (rate->tokens < 1)
		return (unsigned)ceil((1 - rate->tokens) / a_second);
	rate->tokens -= 1;
	return 0;
}

static void admit(struct server *server, struct exchange *exchange, const uint8_t hash[32])
{
	char seconds[16];
	unsigned wait_s = throttle(server, hash);
	if (wait_s == 0) {
		http_authorized(exchange, STATUS_OK, true);
		return;
	}
	snprintf(seconds, sizeof seconds, "%u", wait_s);
	exchange_add_header(exchange, "Retry-After", seconds);
	exchange_problem(exchange, 429, NULL, "this API key asks too often");
}

static void on_key_checked(enum status status, void *arg)
{
	struct key_job *job = arg;
	struct server *server = job->server;
	if (status == STATUS_OK && job->store.found && job->store_version == server->store_version) {
		memcpy(server->known_keys[server->known_count % KNOWN_KEYS], job->store.hash, 32);
		server->known_count++;
	}
	if (status == STATUS_OK && job->store.found)
		admit(server, job->exchange, job->store.hash);
	else
		http_authorized(job->exchange, status, false);
	free(job);
}

void api_authorize(struct exchange *exchange, const uint8_t hash[32], void *arg)
{
	struct server *server = arg;
	bool known = false;
	for (unsigned i = 0; i < KNOWN_KEYS && i < server->known_count; i++)
		known |= bytes_equal(bytes_of(server->known_keys[i], 32), bytes_of(hash, 32));
	if (known) {
		admit(server, exchange, hash);
		return;
	}
	struct key_job *job = calloc(1, sizeof *job);
	if (job != NULL) {
		*job = (struct key_job){ .server = server, .exchange = exchange, .store_version = server->store_version };
		memcpy(job->store.hash, hash, 32);
		if (database_submit(server->database, store_api_key_check, on_key_checked, job) == STATUS_OK)
			return;
	}
	free(job);
	http_authorized(exchange, STATUS_SERVICE_OVERLOADED, false);
}

/* Discovery and the channel ---------------------------------------------------------------------------------------------------------- */

static void get_configuration(struct exchange *exchange, void *arg)
{
	struct server *server = arg;
	json_t *endpoints = json_array();
	for (size_t i = 0; i < server->settings->channel_endpoints.count; i++)
		json_array_append_new(endpoints, json_string(server->settings->channel_endpoints.items[i]));
	exchange_answer(exchange, 200, json_pack("{s:s, s:o, s:s, s:s, s:o, s:[s], s:[s], s:[s], s:[s], s:{s:i}}", "issuer", server->settings->issuer,
		"root_key", jose_key_public_jwk(server->keys.root), "key_set", server->keys.key_set, "enrollment_endpoint", server->settings->enrollment_endpoint,
		"channel_endpoints", endpoints, "subprotocols_supported", WEBSOCKET_SUBPROTOCOL, "signing_alg_values_supported", "ES256",
		"encryption_alg_values_supported", "ECDH-ES", "encryption_enc_values_supported", "A256GCM", "limits", "max_frame_bytes", MAX_FRAME_BYTES));
}

static void get_channel(struct exchange *exchange, void *arg)
{
	struct server *server = arg;
	hub_upgrade(server->hub, exchange);
}

/* Operations ------------------------------------------------------------------------------------------------------------------------- */

static void answer_operation(struct exchange *exchange, const struct operation_row *row)
{
	enum outcome outcome;
	bool final = outcome_from_name(row->status, &outcome) && outcome_is_final(outcome);
	if (!final) {
		char location[64];
		snprintf(location, sizeof location, "/v1/operations/%s", row->operation_id);
		exchange_add_header(exchange, "Location", location);
	}
	exchange_answer(exchange, final ? 200 : 202, operation_row_json(row));
}

static void on_operation(enum status status, const struct operation_row *row, void *arg)
{
	struct exchange *exchange = arg;
	if (status == STATUS_OK) {
		answer_operation(exchange, row);
	} else if (status == STATUS_REQUEST_REPLAYED) {
		exchange_problem(exchange, 409, NULL, "this operation_id stands for something else");
	} else if (status == STATUS_REQUEST_INVALID) {
		exchange_problem(exchange, 400, status_code(status), "secrets: no JWE for the key that it stands under, or too large");
	} else {
		exchange_add_header(exchange, "Retry-After", "5");
		exchange_problem(exchange, 503, status_code(status), "nothing was taken in; ask again");
	}
}

static void post_operation(struct exchange *exchange, void *arg)
{
	struct server *server = arg;
	struct operation_question question = { 0 };
	if (server->stop_by_us != 0) {
		exchange_add_header(exchange, "Retry-After", "1");
		exchange_problem(exchange, 503, status_code(STATUS_SERVICE_OVERLOADED), "this service is about to stop");
		return;
	}
	json_t *body = jose_json_parse(exchange_body(exchange));
	if (!json_is_object(body)) {
		json_decref(body);
		exchange_problem(exchange, 400, status_code(STATUS_REQUEST_INVALID), "the body is no JSON object, or repeats a member");
		return;
	}
	const char *member = question_read(body, server->settings->wait_ms, &question);
	if (member != NULL) {
		char detail[96];
		snprintf(detail, sizeof detail, "malformed: %s", member);
		exchange_problem(exchange, 400, status_code(strcmp(member, "op") == 0 ? STATUS_REQUEST_UNSUPPORTED : STATUS_REQUEST_INVALID), detail);
	} else if (!content_hash(server->content_key, body, question.content)) {
		exchange_problem(exchange, 503, status_code(STATUS_SERVICE_OVERLOADED), "no memory");
	} else {
		operations_ask(server->operations, &question, on_operation, exchange);
	}
	subject_clear(&question.subject);
	json_decref(body);
}

struct find_job {
	struct store_find store;
	struct exchange *exchange;
};

static void on_found(enum status status, void *arg)
{
	struct find_job *job = arg;
	if (status != STATUS_OK)
		exchange_problem(job->exchange, 503, status_code(status), "the store cannot be asked");
	else if (!job->store.found)
		exchange_problem(job->exchange, 404, NULL, "no such operation");
	else
		exchange_answer(job->exchange, 200, operation_row_json(&job->store.row));
	operation_row_clear(&job->store.row);
	free(job);
}

static void get_operation(struct exchange *exchange, void *arg)
{
	struct server *server = arg;
	const struct operation_row *row = operations_find(server->operations, exchange_parameter(exchange));
	if (row != NULL) {
		exchange_answer(exchange, 200, operation_row_json(row));
		return;
	}
	struct find_job *job = calloc(1, sizeof *job);
	if (job != NULL) {
		job->exchange = exchange;
		memcpy(job->store.operation_id, exchange_parameter(exchange), UUID_SIZE);
		if (database_submit(server->database, store_operation_find, on_found, job) == STATUS_OK)
			return;
	}
	free(job);
	exchange_problem(exchange, 503, status_code(STATUS_SERVICE_OVERLOADED), "try again");
}

/* Agents ----------------------------------------------------------------------------------------------------------------------------- */

static json_t *agent_json(const struct agent *agent)
{
	json_t *operations = json_array(), *directories = json_array();
	for (unsigned op = 0; op < OP_COUNT; op++)
		if (agent->hello.operations & 1u << op)
			json_array_append_new(operations, json_string(operation_name((enum operation)op)));
	for (size_t i = 0; i < agent->hello.directory_count; i++)
		json_array_append_new(directories, json_pack("{s:s, s:s}", "name", agent->hello.directories[i].name, "flavor", agent->hello.directories[i].flavor));
	int64_t seen = agent->session != NULL ? clock_now_ms() / 1000 : agent->row.last_seen;
	json_t *json = json_pack("{s:s, s:s, s:b, s:o, s:o, s:o, s:s?}", "agent_id", agent->row.agent_id, "name", agent->row.name, "connected", agent->session != NULL,
		"decryption_key", jose_key_public_jwk(agent->decryption), "operations", operations, "directories", directories, "software", agent->row.software);
	json_object_set_new(json, "last_seen", seen != 0 ? json_integer(seen) : json_null());
	return json;
}

static void get_agents(struct exchange *exchange, void *arg)
{
	struct server *server = arg;
	json_t *array = json_array();
	for (struct agent *agent = hub_agents(server->hub); agent != NULL; agent = agent->next)
		if (agent->row.revoked_at == 0)
			json_array_append_new(array, agent_json(agent));
	exchange_answer(exchange, 200, array);
}

struct revoke_job {
	struct store_agent_change store;
	struct server *server;
	struct exchange *exchange;
};

static void on_revoked(enum status status, void *arg)
{
	struct revoke_job *job = arg;
	if (status != STATUS_OK) {
		exchange_problem(job->exchange, 503, status_code(status), "the revocation could not be recorded");
	} else if (!job->store.found) {
		exchange_problem(job->exchange, 404, NULL, "no such agent");
	} else {
		hub_revoke(job->server->hub, job->store.agent_id, job->store.now);
		exchange_answer(job->exchange, 204, NULL);
	}
	free(job);
}

static void delete_agent(struct exchange *exchange, void *arg)
{
	struct server *server = arg;
	struct revoke_job *job = calloc(1, sizeof *job);
	if (job != NULL) {
		*job = (struct revoke_job){ .server = server, .exchange = exchange };
		memcpy(job->store.agent_id, exchange_parameter(exchange), UUID_SIZE);
		job->store.now = clock_now_ms() / 1000;
		if (database_submit(server->database, store_agent_revoke, on_revoked, job) == STATUS_OK)
			return;
	}
	free(job);
	exchange_problem(exchange, 503, status_code(STATUS_SERVICE_OVERLOADED), "try again");
}

const struct http_route api_routes[] = {
	{ EVHTTP_REQ_GET, "/.well-known/writeback-configuration", HTTP_OPEN, NULL, get_configuration },
	{ EVHTTP_REQ_POST, "/v1/agents", HTTP_OPEN, "application/jose", enroll_handle },
	{ EVHTTP_REQ_GET, "/v1/agent", HTTP_OPEN, NULL, get_channel },
	{ EVHTTP_REQ_POST, "/v1/operations", HTTP_API_KEY, "application/json", post_operation },
	{ EVHTTP_REQ_GET, "/v1/operations/{}", HTTP_API_KEY, NULL, get_operation },
	{ EVHTTP_REQ_GET, "/v1/agents", HTTP_API_KEY, NULL, get_agents },
	{ EVHTTP_REQ_DELETE, "/v1/agents/{}", HTTP_API_KEY, NULL, delete_agent },
	{ 0 }
};
