#include "service/hub_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Agents ----------------------------------------------------------------------------------------------------------------------------- */

static void agent_free(struct agent *agent)
{
	jose_key_free(agent->decryption);
	jose_keys_free(agent->verifiers);
	jose_keys_free(agent->former);
	hello_clear(&agent->hello);
	agent_row_clear(&agent->row);
	free(agent);
}

static struct jose_key *key_of(const char *text, enum jose_use use)
{
	struct jose_key *key = NULL;
	json_t *jwk = text != NULL ? jose_json_parse(bytes_of_string(text)) : NULL;
	if (jwk == NULL || jose_key_from_jwk(jwk, use, false, &key) != STATUS_OK)
		key = NULL;
	json_decref(jwk);
	return key;
}

static char *copy(const char *text)
{
	return text != NULL ? strdup(text) : NULL;
}

static struct agent *agent_new(const struct agent_row *row)
{
	struct agent *agent = calloc(1, sizeof *agent);
	if (agent == NULL)
		return NULL;
	agent->row = *row;
	agent->row.name = copy(row->name);
	agent->row.software = copy(row->software);
	agent->row.signing_key = copy(row->signing_key);
	agent->row.decryption_key = copy(row->decryption_key);
	agent->row.former_keys = copy(row->former_keys);
	agent->former = rekey_former(row);
	agent->decryption = key_of(row->decryption_key, JOSE_DECRYPT);
	agent->verifiers = jose_keys_new();
	struct jose_key *signing = key_of(row->signing_key, JOSE_SIGN);
	if (signing != NULL)
		snprintf(agent->signing_kid, sizeof agent->signing_kid, "%s", jose_key_id(signing));
	if (agent->row.name == NULL || agent->decryption == NULL || signing == NULL || agent->verifiers == NULL || agent->former == NULL ||
	    jose_keys_add(agent->verifiers, signing) != STATUS_OK) {
		agent_free(agent);
		return NULL;
	}
	return agent;
}

struct agent *hub_agents(struct hub *hub)
{
	return hub->agents;
}

struct agent *hub_find(struct hub *hub, const char *agent_id)
{
	struct agent *agent = hub->agents;
	while (agent != NULL && strcmp(agent->row.agent_id, agent_id) != 0)
		agent = agent->next;
	return agent;
}

unsigned hub_connected(const struct hub *hub)
{
	unsigned count = 0;
	for (const struct agent *agent = hub->agents; agent != NULL; agent = agent->next)
		count += agent->session != NULL;
	return count;
}

struct change_job {
	struct store_agent_change store;
	struct agent *agent;                /* NULL: only its last_seen; agents are freed behind the store */
};

static void change_done(enum status status, void *arg)
{
	struct change_job *job = arg;
	if (status != STATUS_OK)
		log_event(job->agent != NULL ? LOG_CRIT : LOG_WARNING, "store.failed", LOG_FIELDS({ LOG_AGENT_ID, job->store.agent_id }, { LOG_CODE, status_code(status) }),
			job->agent != NULL ? "that a clone was seen is not recorded: it is forgotten at the next start" : "last_seen not recorded");
	else if (job->agent != NULL)
		job->agent->clone_unrecorded = false;
	free(job->store.software);
	free(job);
}

void hub_remember_seen(struct hub *hub, struct agent *agent)
{
	agent->row.last_seen = clock_now_ms() / 1000;
	struct change_job *job = calloc(1, sizeof *job);
	if (job == NULL)
		return;
	struct store_agent_change *change = &job->store;
	memcpy(change->agent_id, agent->row.agent_id, UUID_SIZE);
	memcpy(change->instance_id, agent->row.instance_id, UUID_SIZE);
	change->boot = agent->row.boot;
	change->now = agent->row.last_seen;
	change->connected = agent->session != NULL;
	change->ended = agent->session == NULL && agent->ended_us != 0;
	change->software = copy(agent->hello.software);
	if (database_submit(hub->database, store_agent_seen, change_done, job) != STATUS_OK)
		change_done(STATUS_AGENT_OVERLOADED, job);
}

void hub_remember_clone(struct hub *hub, struct agent *agent)
{
	agent->row.clone_seen_at = clock_now_ms() / 1000;
	agent->clone_unrecorded = true;
	struct change_job *job = calloc(1, sizeof *job);
	if (job == NULL)
		return;
	job->agent = agent;
	memcpy(job->store.agent_id, agent->row.agent_id, UUID_SIZE);
	job->store.now = agent->row.clone_seen_at;
	if (database_submit(hub->database, store_agent_clone, change_done, job) != STATUS_OK)
		change_done(STATUS_AGENT_OVERLOADED, job);
}

static void release(struct agent *agent)
{
	agent->row.clone_seen_at = agent->row.boot = 0;
	agent->row.instance_id[0] = '\0';
	log_event(LOG_NOTICE, "agent.released", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }), "%s may connect again", agent->row.name);
}

void hub_revoke(struct hub *hub, const char *agent_id, int64_t now)
{
	struct agent *agent = hub_find(hub, agent_id);
	if (agent == NULL || agent->row.revoked_at != 0)
		return;
	agent->row.revoked_at = now;
	log_event(LOG_WARNING, "agent.revoked", LOG_FIELDS({ LOG_AGENT_ID, agent_id }), "%s is revoked", agent->row.name);
	if (agent->session != NULL)
		session_end(agent->session, 4001, "revoked");
}

bool hub_update(struct hub *hub, const struct agent_rows *rows)
{
	bool good = true;
	for (size_t i = 0; i < rows->count; i++) {
		const struct agent_row *row = &rows->items[i];
		struct agent *agent = hub_find(hub, row->agent_id);
		if (agent != NULL) {
			if (row->revoked_at != 0)
				hub_revoke(hub, row->agent_id, row->revoked_at);
			if (agent->row.clone_seen_at != 0 && row->clone_seen_at == 0 && !agent->clone_unrecorded)
				release(agent);
			continue;
		}
		agent = agent_new(row);
		if (agent == NULL) {
			log_event(LOG_ERR, "agent.unusable", LOG_FIELDS({ LOG_AGENT_ID, row->agent_id }), "the enrolled keys of %s cannot be used", row->name);
			good = false;
			continue;
		}
		agent->hub = hub;
		agent->ended_us = row->ended ? clock_monotonic_us() : 0; /* at the latest */
		agent->next = hub->agents;
		hub->agents = agent;
	}
	return good;
}

enum status hub_new(struct event_base *base, const struct settings *settings, const struct keys *keys, struct database *database, struct hub **ret_hub)
{
	struct hub *hub = calloc(1, sizeof *hub);
	if (hub == NULL)
		return STATUS_AGENT_INTERNAL;
	hub->base = base;
	hub->settings = settings;
	hub->keys = keys;
	hub->database = database;
	*ret_hub = hub;
	return STATUS_OK;
}

void hub_set_callbacks(struct hub *hub, const struct hub_callbacks *callbacks)
{
	hub->callbacks = *callbacks;
}

void hub_free(struct hub *hub)
{
	if (hub == NULL)
		return;
	while (hub->sessions != NULL)
		session_free(hub->sessions);
	while (hub->agents != NULL) {
		struct agent *agent = hub->agents;
		hub->agents = agent->next;
		agent_free(agent);
	}
	free(hub);
}

enum status hub_send(struct agent *agent, const char *frame)
{
	return agent->session != NULL ? websocket_send(agent->session->websocket, bytes_of_string(frame)) : STATUS_CHANNEL_CLOSED;
}

void hub_acknowledge(struct agent *agent, const char *request_id)
{
	if (agent->session == NULL)
		return;
	struct session *session = agent->session;
	memcpy(session->acks[session->ack_count++], request_id, UUID_SIZE);
	/* One signature for all that a commit has made durable: they are told in one turn. */
	if (session->ack_count == SESSION_ACKS)
		session_acknowledge(session);
	else
		event_active(session->acknowledging, EV_TIMEOUT, 0);
}

void hub_set_keys(struct hub *hub, const struct keys *keys)
{
	hub->keys = keys;
	for (struct session *session = hub->sessions; session != NULL; session = session->next)
		if (!session->closing && session->agent != NULL && websocket_send(session->websocket, bytes_of_string(keys->key_set)) != STATUS_OK)
			session_end(session, 1012, "new keys: connect again");
}

void hub_drain(struct hub *hub, const char *reason)
{
	hub->draining = true;
	for (struct agent *agent = hub->agents; agent != NULL; agent = agent->next) {
		if (agent->session == NULL)
			continue;
		agent->draining = true;
		const struct drain drain = { hub->settings->issuer, agent->row.agent_id, clock_now_ms() / 1000, agent->session->id, (char *)reason };
		if (session_send_signed(agent->session, TYP_DRAIN, drain_build(&drain)) != STATUS_OK)
			session_end(agent->session, 1001, reason);
	}
}

void hub_close_all(struct hub *hub, unsigned close_code, const char *reason)
{
	for (struct session *session = hub->sessions, *next; session != NULL; session = next) {
		next = session->next;
		session_end(session, close_code, reason);
	}
}

unsigned hub_sessions(const struct hub *hub)
{
	return hub->session_count;
}
