/* One agent's channel: upgrade, greeting, messages, end. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"
#include "service/hub_internal.h"

#define CUT_MS 200
#define PROTOCOL_VERSION 1
#define MESSAGES_A_SECOND 200.0
#define MAX_IGNORED_LOGGED 5

static int64_t now_s(void)
{
	return clock_now_ms() / 1000;
}

enum status session_send_signed(struct session *session, const char *typ, char *take_payload)
{
	AUTO_FREE char *payload = take_payload;
	AUTO_FREE char *jws = NULL;
	if (payload == NULL)
		return STATUS_AGENT_INTERNAL;
	enum status status = jose_sign(session->hub->keys->signing, typ, bytes_of_string(payload), &jws);
	return status == STATUS_OK ? websocket_send(session->websocket, bytes_of_string(jws)) : status;
}

void session_acknowledge(struct session *session)
{
	if (session->ack_count == 0 || session->agent == NULL)
		return;
	const char *agent_id = session->agent->row.agent_id;
	const struct ack ack = { session->hub->settings->issuer, (char *)agent_id, clock_now_ms() / 1000, session->acks, session->ack_count };
	/* One that is lost is asked for again: the agent repeats its result. */
	if (session_send_signed(session, TYP_ACK, ack_build(&ack)) != STATUS_OK)
		log_event(LOG_INFO, "ack.lost", LOG_FIELDS({ LOG_AGENT_ID, agent_id }), "acknowledgements could not be sent");
	CRASH_POINT(RESULT_ACKNOWLEDGED);
	session->ack_count = 0;
}

static void on_acknowledging(evutil_socket_t fd, short what, void *arg)
{
	session_acknowledge(arg);
}

/* The end ---------------------------------------------------------------------------------------------------------------------------- */

static void lose_agent(struct session *session, const char *why, bool silent)
{
	struct agent *agent = session->agent;
	if (agent == NULL)
		return;
	session->agent = NULL;
	agent->session = NULL;
	agent->draining = false;
	agent->ended_us = silent ? 0 : clock_monotonic_us();
	log_event(LOG_NOTICE, "agent.disconnected", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { "session", session->id }), "%s: %s", agent->row.name, why);
	hub_remember_seen(session->hub, agent);
	session->hub->callbacks.lost(agent, session->hub->callbacks.arg);
}

void session_leave_ungreeted(struct session *session)
{
	session->hub->ungreeted -= session->ungreeted;
	session->ungreeted = false;
}

void session_free(struct session *session)
{
	struct hub *hub = session->hub;
	struct session **link = &hub->sessions;
	while (*link != session)
		link = &(*link)->next;
	*link = session->next;
	hub->session_count--;
	if (session->admission != NULL)
		session->admission->session = NULL;
	session_leave_ungreeted(session);
	if (session->greeting != NULL)
		event_free(session->greeting);
	if (session->acknowledging != NULL)
		event_free(session->acknowledging);
	jose_keys_free(session->former);
	websocket_free(session->websocket);
	upgraded_release(session->connection);
	free(session);
}

static void log_turned_away(struct session *session, unsigned close_code, const char *reason)
{
	struct agent *claimed = session->claimed;
	const char *peer = upgraded_peer(session->connection);
	char more[40] = "";
	unsigned times;
	if (!turned_away_is_news(claimed != NULL ? &claimed->turned_away : &session->hub->turned_away, close_code, reason, peer, clock_monotonic_us(), &times))
		return;
	if (times > 1)
		snprintf(more, sizeof more, ", %u times within the hour", times);
	log_event(LOG_NOTICE, "agent.turned_away", LOG_FIELDS({ "peer", peer }, { "claims", claimed != NULL ? claimed->row.agent_id : NULL }), "closed with %u: %s%s", close_code, reason, more);
}

void session_end(struct session *session, unsigned close_code, const char *reason)
{
	if (session->closing)
		return;
	session_acknowledge(session);
	session->closing = true;
	if (session->agent == NULL)
		log_turned_away(session, close_code, reason);
	lose_agent(session, reason, false);
	websocket_close(session->websocket, close_code, reason);
}

static void on_closed(struct websocket *websocket, const struct websocket_closed *closed, void *arg)
{
	struct session *session = arg;
	char why[192];
	snprintf(why, sizeof why, "%s (%u) %s", status_code(closed->status), closed->close_code, closed->reason);
	lose_agent(session, why, closed->status == STATUS_CHANNEL_TIMEOUT);
	if (!session->cutting)
		session_free(session);
}

/* For a stranger's close frame nobody waits: ours is written, and that is all. */
static void cut(struct session *session, unsigned close_code, const char *reason)
{
	const struct timeval moment = { 0, CUT_MS * 1000 };
	session_leave_ungreeted(session);
	session->cutting = true;
	session_end(session, close_code, reason);
	evtimer_add(session->greeting, &moment);
}

static void on_greeting_late(evutil_socket_t fd, short what, void *arg)
{
	struct session *session = arg;
	if (session->cutting)
		session_free(session);
	else
		cut(session, 1008, "the greeting took too long");
}

/* The greeting ----------------------------------------------------------------------------------------------------------------------- */

static void greet(struct session *session)
{
	struct hub *hub = session->hub;
	nonce_random(session->nonce);
	session->challenged_us = clock_monotonic_us();
	const struct challenge challenge = { hub->settings->issuer, now_s(), session->nonce };
	if (websocket_send(session->websocket, bytes_of_string(hub->keys->key_set)) != STATUS_OK ||
	    session_send_signed(session, TYP_CHALLENGE, challenge_build(&challenge)) != STATUS_OK)
		session_end(session, 1011, "internal error");
}

/* A close code and why; 0 where the hello is good. */
static unsigned judge_hello(struct session *session, const struct agent *agent, const struct hello *hello, int64_t now, const char **ret_why)
{
	const struct { bool fault; unsigned code; const char *why; } checks[] = {
		{ strcmp(hello->agent_id, agent->row.agent_id) != 0, 1008, "iss" },
		{ strcmp(hello->issuer, session->hub->settings->issuer) != 0, 1008, "aud" },
		{ !bytes_equal(bytes_of_string(hello->nonce), bytes_of_string(session->nonce)), 1008, "nonce" },
		{ hello->version != PROTOCOL_VERSION, 4002, "version 1 is spoken here" },
		{ hello->iat > now + CLOCK_SKEW_S || hello->iat < now - CLOCK_SKEW_S, 4005, "clock skew" },
		{ strcmp(hello->decryption_key, jose_key_id(agent->decryption)) != 0, 1008, "decryption_key is not the enrolled one" },
	};
	for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
		if (checks[i].fault) {
			*ret_why = checks[i].why;
			return checks[i].code;
		}
	}
	return 0;
}

/* The agent whose key shall verify: found by the unverified `iss`, believed for nothing else. */
static struct agent *claimed_agent(struct session *session, struct bytes message, unsigned *ret_code, const char **ret_why)
{
	char kid[JOSE_KID_SIZE];
	json_t *payload = NULL;
	*ret_code = 1008;
	if (jose_peek_unverified(message, TYP_HELLO, kid, &payload) != JOSE_OK) {
		*ret_why = "wb-hello+jwt was expected";
		return NULL;
	}
	const char *iss = json_string_value(json_object_get(payload, "iss"));
	struct agent *agent = iss != NULL ? hub_find(session->hub, iss) : NULL;
	json_decref(payload);
	session->claimed = agent;
	if (agent == NULL || agent->row.revoked_at != 0) {
		*ret_code = 4001;
		*ret_why = "unknown or revoked";
		return NULL;
	}
	return agent;
}

/* It holds the new key as well, and has not heard that it is in force: whoever owns the channel can keep the welcome from it. */
static bool knows_next(const struct agent *agent, const struct hello *hello)
{
	return hello->next_signing_key != NULL && strcmp(hello->next_signing_key, agent->signing_kid) == 0;
}

/* Nobody has a former key but who copied it, or was restored from an old backup, once the agent has shown that it has the new one: a clone. Before that, it may be the agent
 * itself that does not know yet (5.3): it is only turned away, and comes by its next key. A hello that somebody has recorded has another challenge's nonce, and says nothing. */
static bool is_former_clone(struct session *session, struct agent *agent, struct bytes message)
{
	AUTO_FREE char *payload = NULL;
	struct hello hello = { 0 };
	const char *member;
	size_t size;
	if (!rekey_is_former(agent, message, &payload, &size))
		return false;
	bool clone = hello_parse(bytes_of(payload, size), &hello, &member) == STATUS_OK && strcmp(hello.agent_id, agent->row.agent_id) == 0 &&
	             strcmp(hello.issuer, session->hub->settings->issuer) == 0 && bytes_equal(bytes_of_string(hello.nonce), bytes_of_string(session->nonce)) &&
	             (session_is_clone(&agent->row, &hello) || (agent->key_used && !knows_next(agent, &hello))) && !session_is_late(session, agent, &hello);
	hello_clear(&hello);
	return clone;
}

static void refuse_former(struct session *session, struct agent *agent)
{
	unsigned times;
	bool news = turned_away_is_news(&agent->turned_away, 0, "a former key", upgraded_peer(session->connection), clock_monotonic_us(), &times);
	/* However many strangers name this agent at the same time. */
	if (news || agent->row.clone_seen_at == 0)
		log_event(LOG_CRIT, "agent.former_key", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { "peer", upgraded_peer(session->connection) }, { "signing_key", agent->signing_kid }),
			"somebody greets as %s with a key that was replaced: either he has copied it, or it was somebody else who replaced it", agent->row.name);
	if (agent->row.clone_seen_at != 0)
		session_end(session, 4003, "a clone of this agent was seen; an administrator of the service must decide");
	else
		session_refuse_clone(session, agent);
}

static void take_hello(struct session *session, struct bytes message)
{
	static const char *const typs[] = { TYP_HELLO, NULL };
	unsigned code = 1008;
	int64_t now = now_s();
	const char *why = "signature", *member;
	AUTO_FREE char *payload = NULL;
	size_t size;
	struct hello hello = { 0 };
	struct agent *agent = claimed_agent(session, message, &code, &why);
	if (agent != NULL) {
		enum jose_reason reason = jose_verify(message, typs, agent->verifiers, &payload, &size, NULL, NULL);
		if (reason == JOSE_KID && is_former_clone(session, agent, message)) {
			refuse_former(session, agent);
			return;
		}
		if (reason == JOSE_INTERNAL)
			code = 1011;
		if (reason != JOSE_OK)
			why = jose_reason_name(reason);
		else if (hello_parse(bytes_of(payload, size), &hello, &member) != STATUS_OK)
			why = member;
		else
			code = judge_hello(session, agent, &hello, now, &why);
	}
	/* 5: the reason text is our time. */
	char skew[24];
	snprintf(skew, sizeof skew, "%lld", (long long)now);
	if (code == 4005)
		why = skew;
	if (code == 0)
		session_admit(session, agent, &hello);
	else
		session_end(session, code, why);
	hello_clear(&hello);
}

/* What comes after ------------------------------------------------------------------------------------------------------------------- */

static void take_result(struct session *session, struct bytes payload)
{
	struct agent *agent = session->agent;
	struct result result;
	const char *member = "";
	result_init(&result);
	if (result_parse(payload, &result, &member) != STATUS_OK) {
		log_event(LOG_WARNING, "result.malformed", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { "member", member }),
			"a result of %s is malformed", agent->row.name);
	} else if (strcmp(result.agent_id, agent->row.agent_id) != 0 || strcmp(result.issuer, session->hub->settings->issuer) != 0) {
		log_event(LOG_WARNING, "result.misdirected", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { LOG_REQUEST_ID, result.request_id }),
			"a result of %s names another agent or issuer", agent->row.name);
	} else {
		session->hub->callbacks.result(agent, &result, session->hub->callbacks.arg);
	}
	result_clear(&result);
}

static void take_drain(struct session *session, struct bytes payload)
{
	struct drain drain = { 0 };
	const char *member;
	if (drain_parse(payload, &drain, &member) == STATUS_OK && strcmp(drain.session, session->id) == 0 &&
	    strcmp(drain.issuer, session->agent->row.agent_id) == 0 && strcmp(drain.audience, session->hub->settings->issuer) == 0) {
		session->agent->draining = true;
		log_event(LOG_NOTICE, "agent.draining", LOG_FIELDS({ LOG_AGENT_ID, session->agent->row.agent_id }, { "reason", drain.reason }),
			"%s takes nothing new", session->agent->row.name);
	}
	drain_clear(&drain);
}

/* By the agent's key, or by the one that greeted here, as long as nothing has come by the new one. */
static enum jose_reason verify(struct session *session, const char *const *typs, struct bytes message, char **ret_payload, size_t *ret_size, const char **ret_typ)
{
	enum jose_reason reason = jose_verify(message, typs, session->agent->verifiers, ret_payload, ret_size, ret_typ, NULL);
	if (reason == JOSE_KID && session->former != NULL)
		return jose_verify(message, typs, session->former, ret_payload, ret_size, ret_typ, NULL);
	if (reason == JOSE_OK && session->former != NULL) {
		jose_keys_free(session->former);
		session->former = NULL;
		session->agent->key_used = true;
	}
	return reason;
}

static void take_message(struct session *session, struct bytes message)
{
	static const char *const typs[] = { TYP_RESULT, TYP_DRAIN, TYP_REKEY, NULL };
	static void (*const takers[])(struct session *session, struct bytes payload) = { take_result, take_drain, session_take_rekey };
	AUTO_FREE char *payload = NULL;
	size_t size, row = 0;
	const char *typ;
	enum jose_reason reason = verify(session, typs, message, &payload, &size, &typ);
	if (reason == JOSE_OK) {
		while (typs[row] != typ)
			row++;
		takers[row](session, bytes_of(payload, size));
		return;
	}
	/* 1: a type of a later version is ignored, where this agent has signed it. */
	char unknown[JOSE_TYP_SIZE];
	const char *const any[] = { unknown, NULL };
	if (reason == JOSE_TYP && jose_peek_typ(NULL, message, unknown) == JOSE_OK)
		reason = verify(session, any, message, &payload, &size, NULL);
	if (reason == JOSE_OK) {
		if (session->ignored++ < MAX_IGNORED_LOGGED)
			log_event(LOG_WARNING, "message.ignored", LOG_FIELDS({ LOG_AGENT_ID, session->agent->row.agent_id }),
				"%s sends messages of a type that is not known here", session->agent->row.name);
		return;
	}
	log_event(LOG_WARNING, "message.unverified", LOG_FIELDS({ LOG_AGENT_ID, session->agent->row.agent_id }, { "reason", jose_reason_name(reason) }),
		"a message of %s does not verify: %s", session->agent->row.name, jose_reason_name(reason));
	session_end(session, reason == JOSE_INTERNAL ? 1011 : 1008, jose_reason_name(reason)); /* 5.2 */
}

static bool has_token(struct session *session)
{
	int64_t now = clock_monotonic_us();
	session->tokens += (double)(now - session->refilled_us) / 1e6 * MESSAGES_A_SECOND;
	if (session->tokens > SESSION_MESSAGES)
		session->tokens = SESSION_MESSAGES;
	session->refilled_us = now;
	session->tokens -= 1;
	return session->tokens >= 0;
}

static void on_message(struct websocket *websocket, struct bytes message, void *arg)
{
	struct session *session = arg;
	if (session->closing)
		return;
	if (session->admission != NULL)
		session_end(session, 1008, "a message before the welcome"); /* 5.1 */
	else if (session->agent == NULL)
		take_hello(session, message);
	else if (!has_token(session))
		session_end(session, 4004, "too many messages");
	else
		take_message(session, message);
}

/* The upgrade ------------------------------------------------------------------------------------------------------------------------ */

/* Whether a comma-separated header has this word. */
static bool header_has(const char *value, const char *word, bool exact_case)
{
	size_t length = strlen(word);
	for (const char *part = value; part != NULL && *part != '\0'; part = *part == ',' ? part + 1 : part) {
		part += strspn(part, " \t,");
		size_t size = strcspn(part, ", \t");
		if (size == length && (exact_case ? strncmp(part, word, size) : strncasecmp(part, word, size)) == 0)
			return true;
		part += strcspn(part, ",");
	}
	return false;
}

/* 0 where the upgrade may go on, else an HTTP status. */
static int judge_upgrade(const struct exchange *exchange, char accept[29], const char **ret_why)
{
	const char *version = exchange_header(exchange, "Sec-WebSocket-Version");
	const char *key = exchange_header(exchange, "Sec-WebSocket-Key");
	*ret_why = "a WebSocket upgrade with subprotocol " WEBSOCKET_SUBPROTOCOL " is expected here";
	if (!header_has(exchange_header(exchange, "Upgrade"), "websocket", false) || !header_has(exchange_header(exchange, "Connection"), "upgrade", false))
		return 426;
	*ret_why = "Sec-WebSocket-Version must be 13";
	if (version == NULL || strcmp(version, "13") != 0)
		return 426;
	*ret_why = "Sec-WebSocket-Key must be base64 of 16 bytes";
	if (key == NULL || !websocket_accept_key(key, accept))
		return 400;
	*ret_why = "Sec-WebSocket-Protocol must offer " WEBSOCKET_SUBPROTOCOL;
	return header_has(exchange_header(exchange, "Sec-WebSocket-Protocol"), WEBSOCKET_SUBPROTOCOL, true) ? 0 : 400;
}

static struct session *session_new(struct hub *hub, struct exchange *exchange, const char *accept)
{
	struct session *session = calloc(1, sizeof *session);
	struct event *greeting = session != NULL ? evtimer_new(hub->base, on_greeting_late, session) : NULL;
	struct event *acknowledging = session != NULL ? evtimer_new(hub->base, on_acknowledging, session) : NULL;
	bool good = greeting != NULL && acknowledging != NULL;
	if (!good)
		exchange_problem(exchange, 503, NULL, "no memory");
	struct upgraded *connection = good ? exchange_upgrade(exchange, accept, WEBSOCKET_SUBPROTOCOL) : NULL;
	if (connection == NULL) {
		if (greeting != NULL)
			event_free(greeting);
		if (acknowledging != NULL)
			event_free(acknowledging);
		free(session);
		return NULL;
	}
	session->hub = hub;
	session->greeting = greeting;
	session->acknowledging = acknowledging;
	session->connection = connection;
	struct websocket_options options = websocket_defaults;
	options.max_message_bytes = MAX_FRAME_BYTES;
	options.ping_interval_ms = (unsigned)hub->settings->ping_interval_ms;
	const struct websocket_callbacks callbacks = { .message = on_message, .closed = on_closed, .arg = session };
	session->next = hub->sessions;
	hub->sessions = session;
	hub->session_count++;
	session->ungreeted = true;
	hub->ungreeted++;
	if (websocket_server_new(upgraded_bufferevent(session->connection), false, &options, &callbacks, &session->websocket) != STATUS_OK) {
		session_free(session);
		return NULL;
	}
	return session;
}

/* Whoever has not greeted must not keep an agent out: the oldest of them goes. */
static void make_room(struct hub *hub)
{
	unsigned agents = 2 * (unsigned)hub->settings->max_agents, connections = (unsigned)hub->settings->max_connections / 2;
	if (hub->ungreeted < (agents < connections ? agents : connections))
		return;
	struct session *oldest = NULL;
	for (struct session *session = hub->sessions; session != NULL; session = session->next)
		if (session->ungreeted)
			oldest = session;
	cut(oldest, 1013, "too many connections that do not greet");
}

void hub_upgrade(struct hub *hub, struct exchange *exchange)
{
	char accept[29];
	const char *why;
	int refused = judge_upgrade(exchange, accept, &why);
	if (refused == 426) {
		exchange_add_header(exchange, "Upgrade", "websocket");
		exchange_add_header(exchange, "Sec-WebSocket-Version", "13");
	}
	if (refused == 0 && hub->draining) {
		refused = 503;
		why = "this service is about to stop";
		exchange_add_header(exchange, "Retry-After", "1");
	}
	if (refused != 0) {
		exchange_problem(exchange, refused, NULL, why);
		return;
	}
	make_room(hub);
	const int64_t greeting_ms = hub->settings->greeting_deadline_ms;
	const struct timeval deadline = { greeting_ms / 1000, greeting_ms % 1000 * 1000 };
	struct session *session = session_new(hub, exchange, accept);
	if (session == NULL)
		return;
	evtimer_add(session->greeting, &deadline);
	greet(session);
}
