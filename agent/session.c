#include "agent/session.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"

#define GREETING_S 15
#define DRAIN_S 20

struct session {
	uint8_t endpoint;
	struct identity *identity;
	struct session_callbacks callbacks;
	struct event *deadline;
	enum session_state state;
	bool next_pair;                /* the hello was by the next keys */
	char challenge[NONCE_SIZE];    /* the service's; "": none yet */
	char nonce[NONCE_SIZE];        /* our own */
	char id[UUID_SIZE];            /* the service's name for the channel */
	int64_t clock_difference_s;
	struct log_budget lines;       /* who owns the channel may repeat anything */
	int64_t frame_us;
	int64_t now_s;
};

typedef void (*frame_handler)(struct session *session, struct bytes payload, struct bytes frame);

/* Rows ------------------------------------------------------------------------------------------------------------------------------ */

enum { IN_KEYS = 1 << SESSION_KEYS, IN_CHALLENGE = 1 << SESSION_CHALLENGE, IN_WELCOME = 1 << SESSION_WELCOME, IN_READY = 1 << SESSION_READY, IN_DRAINING = 1 << SESSION_DRAINING };

static void handle_challenge(struct session *session, struct bytes payload, struct bytes frame);
static void handle_welcome(struct session *session, struct bytes payload, struct bytes frame);
static void handle_request(struct session *session, struct bytes payload, struct bytes frame);
static void handle_ack(struct session *session, struct bytes payload, struct bytes frame);
static void handle_drain(struct session *session, struct bytes payload, struct bytes frame);
static void handle_rekeyed(struct session *session, struct bytes payload, struct bytes frame);

/* wb-keys+jwt has no handler of a payload: the root signs it, and identity_adopt_key_set judges the whole frame. */
static const struct message {
	const char *typ;
	unsigned states;
	frame_handler handler;
} messages[] = {
	{ TYP_KEYS, IN_KEYS | IN_READY | IN_DRAINING, NULL },
	{ TYP_CHALLENGE, IN_CHALLENGE, handle_challenge },
	{ TYP_WELCOME, IN_WELCOME, handle_welcome },
	{ TYP_REQUEST, IN_READY | IN_DRAINING, handle_request },
	{ TYP_ACK, IN_READY | IN_DRAINING, handle_ack },
	{ TYP_DRAIN, IN_READY | IN_DRAINING, handle_drain },
	{ TYP_REKEYED, IN_READY | IN_DRAINING, handle_rekeyed },
	{ TYP_HELLO, 0, NULL },
	{ TYP_RESULT, 0, NULL },
	{ TYP_ENROLL, 0, NULL },
	{ TYP_REKEY, 0, NULL },
	{ TYP_REKEY_PROOF, 0, NULL },
};

static void greet(struct session *session);

static const struct state {
	const char *name;
	bool greeting;
} states[SESSION_STATES] = {
	[SESSION_DOWN] = { "down", false },          [SESSION_KEYS] = { "waiting for keys", true },       [SESSION_CHALLENGE] = { "waiting for challenge", true },
	[SESSION_WELCOME] = { "waiting for welcome", true }, [SESSION_READY] = { "ready", false },  [SESSION_DRAINING] = { "draining", false },
};

const char *session_state_name(enum session_state state) { return states[state].name; }
enum session_state session_state(const struct session *session) { return session->state; }
const char *session_id(const struct session *session) { return session->id; }
uint8_t session_endpoint(const struct session *session) { return session->endpoint; }
bool session_talks(const struct session *session) { return session->state == SESSION_READY || session->state == SESSION_DRAINING; }
int64_t session_clock_difference_s(const struct session *session) { return session->clock_difference_s; }

static void set_state(struct session *session, enum session_state state)
{
	if (session->state == state)
		return;
	log_event(LOG_DEBUG, "session.state", NULL, "endpoint %u: %s -> %s", session->endpoint, states[session->state].name, states[state].name);
	session->state = state;
	session->callbacks.changed(session, session->callbacks.arg);
}

static void refuse_peer(struct session *session, const char *reason)
{
	if (log_allowed(&session->lines))
		log_event(LOG_WARNING, "session.refused", NULL, "endpoint %u, %s: %s", session->endpoint, states[session->state].name, reason);
	event_del(session->deadline);
	set_state(session, SESSION_DOWN);
	session->callbacks.close(session, 1008, reason, session->callbacks.arg);
}

static void handle_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct session *session = arg;
	if (states[session->state].greeting)
		refuse_peer(session, "the greeting took longer than 15 s");
	else
		session_end_drain(session);
}

void session_end_drain(struct session *session)
{
	if (session->state != SESSION_DRAINING)
		return;
	event_del(session->deadline);
	set_state(session, SESSION_DOWN);
	session->callbacks.close(session, 1001, "drained", session->callbacks.arg);
}

struct session *session_new(struct event_base *base, uint8_t endpoint, struct identity *identity, const struct session_callbacks *callbacks)
{
	struct session *session = calloc(1, sizeof *session);
	if (!session)
		return NULL;
	*session = (struct session){ .endpoint = endpoint, .identity = identity, .callbacks = *callbacks };
	session->deadline = event_new(base, -1, 0, handle_deadline, session);
	if (session->deadline)
		return session;
	free(session);
	return NULL;
}

void session_free(struct session *session)
{
	if (!session)
		return;
	event_free(session->deadline);
	free(session);
}

void session_up(struct session *session)
{
	if (!session->identity->enrolled) {
		session->callbacks.close(session, 1001, "the agent is not enrolled", session->callbacks.arg);
		return;
	}
	session->id[0] = session->challenge[0] = 0;
	set_state(session, SESSION_KEYS);
	event_add(session->deadline, &(struct timeval){ GREETING_S, 0 });
}

static void log_unwritten(const struct session *session, enum status status, const char *what)
{
	char why[512];
	if (status == STATUS_OK || status == STATUS_LOCAL_INPUT)
		return;
	identity_describe_unwritten(session->identity, why, sizeof why);
	log_event(LOG_ERR, "keys.unwritten", NULL, "%s: %s", what, why);
}

static void handle_turn_written(enum status status, void *arg)
{
	struct session *session = arg;
	/* The hello is what it should be all the same; only a crash would forget whose turn it is. */
	log_unwritten(session, status, "which keys are to greet is not kept");
	if (status == STATUS_LOCAL_INPUT || session->state != SESSION_CHALLENGE || !session->challenge[0])
		return;
	/* Another endpoint's refusal may have turned it back meanwhile. */
	if (status == STATUS_OK && session->identity->turn_unwritten)
		identity_save(session->identity, handle_turn_written, session);
	else
		greet(session);
}

void session_refused(struct session *session)
{
	if (session->state == SESSION_WELCOME)
		identity_set_turn(session->identity, !session->next_pair, handle_turn_written, session);
}

void session_down(struct session *session)
{
	event_del(session->deadline);
	set_state(session, SESSION_DOWN);
}

/* Sending --------------------------------------------------------------------------------------------------------------------------- */

static enum status send_by(struct session *session, struct jose_key *key, const char *typ, struct bytes payload)
{
	AUTO_FREE char *jws = NULL;
	enum status status = jose_sign(key, typ, payload, &jws);
	CRASH_POINT(RESULT_SIGNED);
	if (status == STATUS_OK)
		status = session->callbacks.send(session, bytes_of_string(jws), session->callbacks.arg);
	CRASH_POINT(RESULT_SENT);
	return status;
}

static enum status sign_and_send(struct session *session, const char *typ, struct bytes payload)
{
	return send_by(session, session->identity->signing, typ, payload);
}

enum status session_send(struct session *session, const char *typ, struct bytes payload)
{
	return session_talks(session) ? sign_and_send(session, typ, payload) : STATUS_CHANNEL_CLOSED;
}

static enum status send_hello(struct session *session, const char *nonce)
{
	const struct identity *identity = session->identity;
	struct session_self self = { 0 };
	session->callbacks.self(&self, session->callbacks.arg);
	nonce_random(session->nonce);
	session->next_pair = identity->next.signing && identity->next.first;
	const struct jose_key *decryption = session->next_pair ? identity->next.decryption : identity->decryption;
	struct hello hello = {
		.agent_id = (char *)identity->agent_id, .issuer = identity->issuer, .iat = session->now_s, .nonce = (char *)nonce, .agent_nonce = session->nonce,
		.instance_id = (char *)identity->instance_id, .boot = self.boot, .version = 1, .software = (char *)"writebackd/" WRITEBACKD_VERSION,
		.directories = (struct hello_directory *)self.directories, .directory_count = self.directory_count, .operations = self.operations,
		.max_in_flight = self.max_in_flight, .decryption_key = (char *)jose_key_id(decryption),
		.next_signing_key = identity->next.signing && !session->next_pair ? (char *)jose_key_id(identity->next.signing) : NULL,
	};
	AUTO_FREE char *payload = hello_build(&hello);
	return payload ? send_by(session, session->next_pair ? identity->next.signing : identity->signing, TYP_HELLO, bytes_of_string(payload)) : STATUS_AGENT_INTERNAL;
}

void session_drain(struct session *session, const char *reason)
{
	if (session->state != SESSION_READY)
		return;
	const struct identity *identity = session->identity;
	struct drain drain = { .issuer = (char *)identity->agent_id, .audience = identity->issuer, .iat = clock_now_ms() / 1000, .session = session->id, .reason = (char *)reason };
	AUTO_FREE char *payload = drain_build(&drain);
	if (!payload || sign_and_send(session, TYP_DRAIN, bytes_of_string(payload)) != STATUS_OK)
		return;
	event_add(session->deadline, &(struct timeval){ DRAIN_S, 0 });
	set_state(session, SESSION_DRAINING);
}

void session_greet_again(struct session *session, const char *reason)
{
	if (session->state == SESSION_READY)
		session_drain(session, reason);
	if (session->state != SESSION_READY && !states[session->state].greeting)
		return;
	event_del(session->deadline);
	set_state(session, SESSION_DOWN);
	session->callbacks.close(session, 1001, reason, session->callbacks.arg);
}

/* Receiving ------------------------------------------------------------------------------------------------------------------------- */

static const struct message *find_message(const char *typ)
{
	for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
		if (strcmp(messages[i].typ, typ) == 0)
			return &messages[i];
	return NULL;
}

static void cannot_verify(struct session *session, struct bytes frame, enum jose_reason reason)
{
	char text[64];
	snprintf(text, sizeof text, "message not verified: %s", jose_reason_name(reason));
	if (states[session->state].greeting)
		refuse_peer(session, text);
	else
		session->callbacks.unverified(session, frame, reason, session->callbacks.arg);
}

/* In force already; the next minute, or the next greeting, mends it. */
static void handle_key_set_written(enum status status, void *arg)
{
	log_unwritten(arg, status, "the new key set is in force but not kept");
}

static void handle_keys(struct session *session, struct bytes frame)
{
	bool changed;
	enum status status = identity_adopt_key_set(session->identity, frame, session->now_s, &changed, handle_key_set_written, session);
	if (changed)
		session->callbacks.key_set(session, session->callbacks.arg);
	if (status != STATUS_OK && session->state != SESSION_KEYS) {
		if (log_allowed(&session->lines))
			log_event(LOG_ERR, "keys.refused", LOG_FIELDS({ LOG_CODE, status_code(status) }), "the service's new key set is not accepted: not signed by the pinned root, older, or expired");
	} else if (status != STATUS_OK)
		refuse_peer(session, "the key set is not signed by the pinned root, older than the last one, or expired");
	if (session->state == SESSION_KEYS)
		set_state(session, SESSION_CHALLENGE);
}

void session_frame(struct session *session, struct bytes frame, int64_t now_s)
{
	session->now_s = now_s;
	session->frame_us = clock_monotonic_us();
	if (session->state == SESSION_DOWN)
		return;
	char typ[JOSE_TYP_SIZE];
	enum jose_reason reason = jose_peek_typ(session->identity->key_set.keys, frame, typ);
	if (reason != JOSE_OK) {
		cannot_verify(session, frame, reason);
		return;
	}
	const struct message *message = find_message(typ);
	bool permitted = message && (message->states & 1u << session->state);
	if (states[session->state].greeting && !permitted) {
		refuse_peer(session, "a message came in the wrong order");
		return;
	}
	if (permitted && !message->handler) {
		handle_keys(session, frame);
		return;
	}
	if (message && message->handler == handle_request)
		CRASH_POINT(RECEIVED);
	AUTO_FREE char *payload = NULL;
	size_t size = 0;
	const char *const typs[] = { typ, NULL };
	reason = identity_trusts(session->identity, now_s) ? jose_verify(frame, typs, session->identity->key_set.keys, &payload, &size, NULL, NULL) : JOSE_KID;
	if (reason != JOSE_OK)
		cannot_verify(session, frame, reason);
	else if (permitted)
		message->handler(session, bytes_of(payload, size), frame);
	else if (message)
		cannot_verify(session, frame, JOSE_TYP); /* nothing that a service sends, or not after the greeting */
	/* else: a newer service's message, correctly signed: ignored */
}

static void greet(struct session *session)
{
	if (send_hello(session, session->challenge) != STATUS_OK)
		refuse_peer(session, "the hello could not be sent");
	else
		set_state(session, SESSION_WELCOME);
}

/* A pair that the service has dropped is not shown to it again: a crash behind the hello has to find whose turn it was. */
static void handle_challenge(struct session *session, struct bytes payload, struct bytes frame)
{
	struct challenge challenge = { 0 };
	const char *member = NULL;
	if (challenge_parse(payload, &challenge, &member) != STATUS_OK || strcmp(challenge.issuer, session->identity->issuer) != 0)
		refuse_peer(session, "the challenge is malformed or of another issuer");
	else if (session->challenge[0])
		refuse_peer(session, "a second challenge came");
	else {
		snprintf(session->challenge, sizeof session->challenge, "%s", challenge.nonce);
		if (session->identity->turn_unwritten)
			identity_save(session->identity, handle_turn_written, session);
		else
			greet(session);
	}
	challenge_clear(&challenge);
}

static bool is_ours(const struct session *session, const char *issuer, const char *audience)
{
	return strcmp(issuer, session->identity->issuer) == 0 && strcmp(audience, session->identity->agent_id) == 0;
}

static void handle_welcome(struct session *session, struct bytes payload, struct bytes frame)
{
	struct welcome welcome = { 0 };
	const char *member = NULL;
	if (welcome_parse(payload, &welcome, &member) != STATUS_OK || !is_ours(session, welcome.issuer, welcome.agent_id) || !uuid_valid(welcome.session))
		refuse_peer(session, "the welcome is malformed or for another agent");
	else if (!bytes_equal(bytes_of_string(welcome.nonce), bytes_of_string(session->nonce)))
		refuse_peer(session, "the welcome answers another hello");
	else {
		event_del(session->deadline);
		strcpy(session->id, welcome.session);
		session->clock_difference_s = welcome.iat - session->now_s;
		wipe(session->nonce, sizeof session->nonce);
		if (session->next_pair)
			session->callbacks.next_welcomed(session, session->callbacks.arg);
		set_state(session, SESSION_READY);
	}
	welcome_clear(&welcome);
}

static void handle_request(struct session *session, struct bytes payload, struct bytes frame)
{
	CRASH_POINT(VERIFIED);
	session->callbacks.request(session, payload, frame, session->frame_us, session->callbacks.arg);
}

static void handle_ack(struct session *session, struct bytes payload, struct bytes frame)
{
	struct ack ack = { 0 };
	const char *member = NULL;
	bool good = ack_parse(payload, &ack, &member) == STATUS_OK && is_ours(session, ack.issuer, ack.agent_id);
	CRASH_POINT(ACKNOWLEDGED);
	for (size_t i = 0; good && i < ack.count; i++)
		session->callbacks.acknowledged(session, ack.request_ids[i], session->callbacks.arg);
	CRASH_POINT(ACKNOWLEDGEMENT_GIVEN);
	if (!good && log_allowed(&session->lines))
		log_event(LOG_WARNING, "ack.refused", NULL, "an acknowledgement is malformed or for another agent");
	ack_clear(&ack);
}

static void handle_drain(struct session *session, struct bytes payload, struct bytes frame)
{
	struct drain drain = { 0 };
	const char *member = NULL;
	bool good = drain_parse(payload, &drain, &member) == STATUS_OK && is_ours(session, drain.issuer, drain.audience) && strcmp(drain.session, session->id) == 0;
	if (good && session->state == SESSION_READY) {
		if (log_allowed(&session->lines))
			log_event(LOG_NOTICE, "session.drain", NULL, "endpoint %u: the service drains this channel: %s", session->endpoint, drain.reason ? drain.reason : "");
		event_add(session->deadline, &(struct timeval){ DRAIN_S, 0 });
		set_state(session, SESSION_DRAINING);
	}
	drain_clear(&drain);
}

static void handle_rekeyed(struct session *session, struct bytes payload, struct bytes frame)
{
	struct rekeyed rekeyed = { 0 };
	const char *member = NULL;
	if (rekeyed_parse(payload, &rekeyed, &member) == STATUS_OK && is_ours(session, rekeyed.issuer, rekeyed.agent_id) && strcmp(rekeyed.session, session->id) == 0)
		session->callbacks.rekeyed(session, &rekeyed, session->callbacks.arg);
	else if (log_allowed(&session->lines))
		log_event(LOG_WARNING, "keys.answer_refused", NULL, "the service's answer to new keys is malformed, or of another channel");
	rekeyed_clear(&rekeyed);
}
