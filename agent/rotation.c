/* When the agent's own keys are replaced, and how the service is told (proto/README.md 5.3). What is on disk at which moment is identity.h's. */
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"

#define DAY_S 86400
#define ANSWER_S 20

static int64_t now_s(void)
{
	return clock_now_ms() / 1000;
}

static bool is_pending(const struct agent *agent)
{
	return agent->identity.next.signing != NULL;
}

/* Who waits ----------------------------------------------------------------------------------------------------------------------------- */

static struct control_call *take_call(struct agent *agent)
{
	struct control_call *call = agent->rotation.call;
	agent->rotation.call = NULL;
	if (call)
		event_del(agent->rotation.deadline);
	return call;
}

static void refuse_call(struct agent *agent, enum status status, const char *text)
{
	struct control_call *call = take_call(agent);
	if (call)
		control_refuse(call, status, text);
}

static void handle_deadline(evutil_socket_t fd, short what, void *arg)
{
	refuse_call(arg, STATUS_CHANNEL_TIMEOUT, "the service has not confirmed the new keys yet: they stay ready, and it is told again on each new channel; 'writebackctl status' shows it");
}

/* For what is mended by the next minute. */
static void handle_written(enum status status, void *arg)
{
	struct agent *agent = arg;
	char why[512];
	identity_describe_unwritten(&agent->identity, why, sizeof why);
	if (status != STATUS_OK && status != STATUS_LOCAL_INPUT)
		log_event(LOG_ERR, "keys.unwritten", NULL, "%s; it is tried again each minute", why);
}

static void handle_mended(enum status status, void *arg)
{
	if (status == STATUS_OK)
		log_event(LOG_NOTICE, "keys.written", NULL, "identity.json is written");
}

enum status agent_open_rotation(struct agent *agent)
{
	agent->rotation.deadline = event_new(loop_base(agent->loop), -1, 0, handle_deadline, agent);
	agent->rotation.begun_s = is_pending(agent) ? agent->identity.next.made_at : 0;
	if (agent->identity.enrolled)
		identity_drop_retired(&agent->identity, now_s(), handle_written, agent);
	return agent->rotation.deadline ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

void agent_close_rotation(struct agent *agent)
{
	if (agent->rotation.deadline)
		event_free(agent->rotation.deadline);
}

void agent_reset_rotation(struct agent *agent)
{
	refuse_call(agent, STATUS_LOCAL_INPUT, "another agent has been enrolled meanwhile");
	agent->rotation.asked = 0;
	agent->rotation.begun_s = agent->rotation.refused_s = agent->rotation.warned_s = 0;
}

/* Telling the service -------------------------------------------------------------------------------------------------------------------- */

static void send_rekey(struct agent *agent, struct session *session)
{
	const struct identity *identity = &agent->identity;
	struct rekey rekey = { .agent_id = (char *)identity->agent_id, .issuer = identity->issuer, .iat = now_s(), .session = (char *)session_id(session),
	                       .signing_key = identity->next.signing, .decryption_key = identity->next.decryption };
	AUTO_FREE char *payload = rekey_build(&rekey);
	if (payload && session_send(session, TYP_REKEY, bytes_of_string(payload)) == STATUS_OK)
		agent->rotation.asked |= 1u << session_endpoint(session);
	CRASH_POINT(REKEY_SENT);
}

static struct session *any_ready(struct agent *agent)
{
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->sessions[i] && session_state(agent->sessions[i]) == SESSION_READY)
			return agent->sessions[i];
	return NULL;
}

static bool is_due(const struct agent *agent)
{
	return agent->identity.enrolled && !is_pending(agent) && !agent->identity.making.signing && now_s() - agent->identity.made_at >= agent->settings->rotate_after_ms / 1000;
}

/* What cannot be done is told once a day. */
static void warn(struct agent *agent, const char *event, const char *text)
{
	if (agent->rotation.warned_s && now_s() - agent->rotation.warned_s < DAY_S)
		return;
	agent->rotation.warned_s = now_s();
	log_event(LOG_WARNING, event, NULL, "%s", text);
}

/* One that was refused is not repeated on each channel that it would close. */
static bool may_ask(const struct agent *agent)
{
	return !agent->rotation.refused_s || now_s() - agent->rotation.refused_s >= DAY_S || now_s() < agent->rotation.refused_s;
}

static void handle_begun(enum status status, void *arg)
{
	struct agent *agent = arg;
	char why[512], text[640];
	if (status != STATUS_OK) {
		identity_describe_unwritten(&agent->identity, why, sizeof why);
		snprintf(text, sizeof text, "new keys cannot be written, and the present ones stay in use: %s", why);
		warn(agent, "keys.not_rotated", text);
		refuse_call(agent, status, text);
		return;
	}
	CRASH_POINT(KEYS_NAMED);
	agent->rotation.begun_s = now_s();
	agent->rotation.refused_s = 0;
	log_event(LOG_NOTICE, "keys.rotating", LOG_FIELDS({ "signing_key", jose_key_id(agent->identity.next.signing) }, { "decryption_key", jose_key_id(agent->identity.next.decryption) }),
	          "new keys are made; the service is told");
	struct session *session = any_ready(agent);
	if (session)
		send_rekey(agent, session);
}

static void begin_where_due(struct agent *agent)
{
	if (is_due(agent) && identity_begin_rotation(&agent->identity, now_s(), handle_begun, agent) != STATUS_OK)
		warn(agent, "keys.not_rotated", "the agent's keys are due to be replaced, and were so several times within the hour already: it is tried again");
}

void agent_rotation_ready(struct agent *agent, struct session *session)
{
	if (is_pending(agent) && may_ask(agent))
		send_rekey(agent, session);
	begin_where_due(agent);
}

void agent_rotation_minute(struct agent *agent)
{
	struct session *session = any_ready(agent);
	if (!agent->identity.enrolled)
		return;
	if (agent->identity.unwritten && !agent->identity.store.writing)
		identity_save(&agent->identity, handle_mended, agent);
	identity_drop_retired(&agent->identity, now_s(), handle_written, agent);
	if (session && is_pending(agent) && may_ask(agent) && !(agent->rotation.asked & 1u << session_endpoint(session)))
		send_rekey(agent, session);
	if (session)
		begin_where_due(agent);
	if (is_pending(agent) && now_s() - agent->rotation.begun_s >= DAY_S)
		warn(agent, "keys.rotation_pending", "the service has not confirmed the agent's new keys since more than a day; the old ones stay in use");
}

/* What comes back ------------------------------------------------------------------------------------------------------------------------ */

static void handle_finished(enum status status, void *arg)
{
	struct agent *agent = arg;
	const struct identity *identity = &agent->identity;
	CRASH_POINT(KEYS_DESTROYED);
	handle_written(status, arg);
	struct control_call *call = status == STATUS_LOCAL_INPUT ? NULL : take_call(agent);
	if (call)
		control_reply(call, json_pack("{s:{s:s,s:s},s:{s:s,s:s}}", "old", "signing_key", agent->rotation.old_signing, "decryption_key", agent->rotation.old_decryption, "new",
		                              "signing_key", jose_key_id(identity->signing), "decryption_key", jose_key_id(identity->decryption)));
}

static void finish(struct agent *agent)
{
	struct identity *identity = &agent->identity;
	const char *old_signing = agent->rotation.old_signing, *old_decryption = agent->rotation.old_decryption;
	snprintf(agent->rotation.old_signing, JOSE_KID_SIZE, "%s", jose_key_id(identity->signing));
	snprintf(agent->rotation.old_decryption, JOSE_KID_SIZE, "%s", jose_key_id(identity->decryption));
	agent->rotation.asked = 0;
	agent->rotation.begun_s = agent->rotation.refused_s = agent->rotation.warned_s = 0;
	log_event(LOG_NOTICE, "keys.rotated", LOG_FIELDS({ LOG_AGENT_ID, identity->agent_id }, { "old_signing_key", old_signing }, { "signing_key", jose_key_id(identity->next.signing) },
	          { "old_decryption_key", old_decryption }, { "decryption_key", jose_key_id(identity->next.decryption) }), "the service has taken the agent's new keys");
	if (identity_finish_rotation(identity, now_s(), handle_finished, agent) != STATUS_OK)
		handle_finished(STATUS_AGENT_INTERNAL, agent);
	CRASH_POINT(KEYS_SWITCHED);
}

void agent_rotation_answered(struct agent *agent, struct session *session, const struct rekeyed *rekeyed)
{
	const struct identity *identity = &agent->identity;
	/* The answer to an earlier question, which whoever owns the channel may bring again, refuses nothing. */
	bool earlier = strcmp(rekeyed->signing_key, jose_key_id(identity->signing)) == 0 && strcmp(rekeyed->decryption_key, jose_key_id(identity->decryption)) == 0;
	if (!is_pending(agent) || earlier)
		return;
	CRASH_POINT(REKEYED);
	agent->rotation.asked &= ~(1u << session_endpoint(session));
	if (strcmp(rekeyed->signing_key, jose_key_id(identity->next.signing)) == 0 && strcmp(rekeyed->decryption_key, jose_key_id(identity->next.decryption)) == 0) {
		finish(agent);
		return;
	}
	agent->rotation.refused_s = now_s();
	snprintf(agent->rotation.refused_why, sizeof agent->rotation.refused_why, "it says that others are in force");
	log_event(LOG_ERR, "keys.rotation_refused", LOG_FIELDS({ "signing_key", rekeyed->signing_key }, { "decryption_key", rekeyed->decryption_key }),
	          "the service answers new keys with others than it was told");
	refuse_call(agent, STATUS_LOCAL_TRUST, "the service answers the new keys with others than it was told");
}

void agent_rotation_welcomed(struct agent *agent)
{
	if (is_pending(agent))
		finish(agent);
}

void agent_rotation_closed(struct agent *agent, struct session *session, unsigned close_code, const char *reason)
{
	unsigned bit = 1u << session_endpoint(session);
	bool refused = (agent->rotation.asked & bit) && close_code == 1008 && session_talks(session);
	agent->rotation.asked &= ~bit;
	if (!refused || !is_pending(agent))
		return;
	char text[256];
	agent->rotation.refused_s = now_s();
	snprintf(agent->rotation.refused_why, sizeof agent->rotation.refused_why, "%.100s", reason);
	utf8_mend(agent->rotation.refused_why);
	snprintf(text, sizeof text, "the service refuses the agent's new keys: %.100s; the present ones stay in use, and it is asked again tomorrow", agent->rotation.refused_why);
	agent->rotation.warned_s = 0;
	warn(agent, "keys.rotation_refused", text);
	refuse_call(agent, STATUS_CHANNEL_CLOSED, text);
}

void agent_describe_rotation(const struct agent *agent, char *text, size_t capacity)
{
	char begun[CLOCK_TEXT_SIZE];
	clock_format(agent->rotation.begun_s * 1000, begun);
	text[0] = 0;
	if (is_pending(agent) && agent->rotation.refused_s)
		snprintf(text, capacity, "new ones since %s, which the service refuses: %s", begun, agent->rotation.refused_why);
	else if (is_pending(agent))
		snprintf(text, capacity, "new ones since %s, which the service has not confirmed yet", begun);
	else if (is_due(agent))
		snprintf(text, capacity, "due to be replaced as soon as there is a channel");
}

void agent_rotate_keys(struct control_call *call, const json_t *input, void *arg)
{
	struct agent *agent = arg;
	struct session *session = any_ready(agent);
	if (!agent->identity.enrolled) {
		control_refuse(call, STATUS_LOCAL_NOT_ENROLLED, "the agent is not enrolled and has no keys: writebackctl enroll");
		return;
	}
	if (!session || agent->rotation.call) {
		control_refuse(call, STATUS_CHANNEL_CLOSED, session ? "the keys are being replaced at this moment" : "there is no channel, and the service must be told of new keys: try again when 'writebackctl status' shows it ready");
		return;
	}
	if (is_pending(agent))
		send_rekey(agent, session);
	else if (!agent->identity.making.signing && identity_begin_rotation(&agent->identity, now_s(), handle_begun, agent) != STATUS_OK) {
		control_refuse(call, STATUS_LOCAL_INPUT, "the keys were replaced several times within the hour, for which old decryption keys are kept: try again later");
		return;
	}
	agent->rotation.call = call;
	agent->rotation.refused_s = 0;
	event_add(agent->rotation.deadline, &(struct timeval){ ANSWER_S, 0 });
}
