/* From a good hello to the welcome. What tells a clone, the highest boot and its instance, is on disk before the agent hears that it is let in: else a service that is killed in between would let in a copy
 * that is behind. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "service/hub_internal.h"

/* proto/README.md 5.1, also with what was there when no channel stands. */
bool session_is_clone(const struct agent_row *seen, const struct hello *newcomer)
{
	bool same_instance = strcmp(seen->instance_id, newcomer->instance_id) == 0;
	return seen->instance_id[0] != '\0' && (newcomer->boot < seen->boot || (newcomer->boot == seen->boot && !same_instance));
}

/* Whoever owns the channel may have held this hello up until the agent had started anew. A clone comes again. */
bool session_is_late(const struct session *session, const struct agent *agent, const struct hello *hello)
{
	return session->challenged_us < agent->greeted_us && strcmp(agent->row.instance_id, hello->instance_id) == 0;
}

/* Those of this agent that wait for their welcome. */
static void end_admissions(struct agent *agent, unsigned close_code, const char *reason)
{
	for (struct session *session = agent->hub->sessions, *next; session != NULL; session = next) {
		next = session->next;
		if (session->admission != NULL && session->admission->agent == agent)
			session_end(session, close_code, reason);
	}
}

void session_refuse_clone(struct session *session, struct agent *agent)
{
	struct session *present = agent->session;
	log_event(LOG_CRIT, "agent.clone", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { "peer", upgraded_peer(session->connection) },
		{ "other", present != NULL ? upgraded_peer(present->connection) : NULL }),
		"two instances of %s: its keys may be stolen. None is let in until 'reset-service revoke' or 'reset-service release'", agent->row.name);
	if (present != NULL)
		session_end(present, 4003, "another instance of this agent is connected");
	end_admissions(agent, 4003, "another instance of this agent is connected");
	session_end(session, 4003, "another instance of this agent was connected");
	hub_remember_clone(session->hub, agent);
}

/* Takes admission->hello. */
static void welcome(struct session *session, struct admission *admission)
{
	struct hub *hub = session->hub;
	struct agent *agent = admission->agent;
	if (agent->session != NULL)
		session_end(agent->session, 1001, "superseded");
	event_del(session->greeting);
	session->tokens = SESSION_MESSAGES;
	session->refilled_us = clock_monotonic_us();
	uuid_random(session->id);
	hello_clear(&agent->hello);
	agent->hello = admission->hello;
	admission->hello = (struct hello){ 0 };
	session->agent = agent;
	agent->session = session;
	turned_away_forget(&agent->turned_away);
	agent->draining = false;
	free(agent->row.software);
	agent->row.software = agent->hello.software != NULL ? strdup(agent->hello.software) : NULL;
	const struct welcome answer = { hub->settings->issuer, agent->row.agent_id, clock_now_ms() / 1000, agent->hello.agent_nonce, session->id, MAX_FRAME_BYTES };
	if (session_send_signed(session, TYP_WELCOME, welcome_build(&answer)) != STATUS_OK) {
		session_end(session, 1011, "internal error");
		return;
	}
	log_event(LOG_NOTICE, "agent.connected", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { "session", session->id },
		{ "peer", upgraded_peer(session->connection) }, { "software", agent->hello.software }), "%s is connected", agent->row.name);
	hub_remember_seen(hub, agent);
	hub->callbacks.ready(agent, hub->callbacks.arg);
}

/* A close code and why; 0 where nothing is in the way. Asked at the hello, and again once it is recorded. */
static unsigned obstacle(const struct hub *hub, const struct agent *agent, const struct hello *hello, const char *signing_kid, const char **ret_why)
{
	const struct { bool there; unsigned code; const char *why; } checks[] = {
		{ agent->row.revoked_at != 0, 4001, "unknown or revoked" },
		{ agent->row.clone_seen_at != 0, 4003, "a clone of this agent was seen; an administrator of the service must decide" },
		{ hub->draining, 1001, "the service stops" },
		{ strcmp(signing_kid, agent->signing_kid) != 0 || strcmp(hello->decryption_key, jose_key_id(agent->decryption)) != 0, 1012, "its keys were replaced meanwhile" },
		{ agent->session == NULL && hub_connected(hub) >= (unsigned)hub->settings->max_agents, 1013, "too many agents" },
	};
	for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
		if (checks[i].there) {
			*ret_why = checks[i].why;
			return checks[i].code;
		}
	}
	return 0;
}

static void admission_free(struct admission *admission)
{
	if (admission->session != NULL)
		admission->session->admission = NULL;
	hello_clear(&admission->hello);
	free(admission);
}

static void on_recorded(enum status status, void *arg)
{
	struct admission *admission = arg;
	struct session *session = admission->session;
	struct agent *agent = admission->agent;
	const char *why = "the store does not take it: try again";
	if (status != STATUS_OK)
		log_event(LOG_ERR, "store.failed", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { LOG_CODE, status_code(status) }), "that an agent has started anew is not recorded: it is not let in");
	else if (admission->store.boot == agent->row.boot && strcmp(admission->store.instance_id, agent->row.instance_id) == 0)
		agent->boot_unrecorded = false;
	if (session != NULL && !session->closing) {
		session->admission = NULL;
		unsigned code = status != STATUS_OK ? 1013 : obstacle(session->hub, agent, &admission->hello, admission->signing_kid, &why);
		if (code != 0)
			session_end(session, code, why);
		else
			welcome(session, admission);
	}
	admission_free(admission);
}

static void record(struct session *session, struct agent *agent, struct hello *take_hello)
{
	struct admission *admission = calloc(1, sizeof *admission);
	if (admission == NULL) {
		session_end(session, 1011, "no memory");
		return;
	}
	admission->session = session;
	admission->agent = agent;
	admission->hello = *take_hello;
	*take_hello = (struct hello){ 0 };
	memcpy(admission->signing_kid, agent->signing_kid, sizeof admission->signing_kid);
	memcpy(admission->store.agent_id, agent->row.agent_id, UUID_SIZE);
	memcpy(admission->store.instance_id, agent->row.instance_id, UUID_SIZE);
	admission->store.boot = agent->row.boot;
	/* Reconnecting after a cut changes nothing. */
	if (!agent->boot_unrecorded) {
		on_recorded(STATUS_OK, admission);
		return;
	}
	session->admission = admission;
	if (database_submit(session->hub->database, store_agent_boot, on_recorded, admission) != STATUS_OK)
		on_recorded(STATUS_AGENT_OVERLOADED, admission);
}

void session_admit(struct session *session, struct agent *agent, struct hello *take_hello)
{
	const char *why;
	if (agent->row.clone_seen_at == 0 && session_is_clone(&agent->row, take_hello)) {
		if (session_is_late(session, agent, take_hello))
			session_end(session, 1008, "an older challenge than that of the hello before");
		else
			session_refuse_clone(session, agent);
		return;
	}
	unsigned code = obstacle(session->hub, agent, take_hello, agent->signing_kid, &why);
	if (code != 0) {
		session_end(session, code, why);
		return;
	}
	end_admissions(agent, 1001, "superseded");
	session_leave_ungreeted(session);
	agent->key_used = true;
	agent->greeted_us = clock_monotonic_us();
	/* In memory at once: the next hello is compared with this one. */
	agent->boot_unrecorded |= agent->row.boot != take_hello->boot || strcmp(agent->row.instance_id, take_hello->instance_id) != 0;
	agent->row.boot = take_hello->boot;
	snprintf(agent->row.instance_id, sizeof agent->row.instance_id, "%s", take_hello->instance_id);
	record(session, agent, take_hello);
}
