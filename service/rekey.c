/* An agent replaces its keys (proto/README.md 5.3). */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "service/hub_internal.h"

#define PORTAL_OVERLAP_S 600 /* how long what a portal has encrypted to the key before is still sent: the agent can decrypt it for an hour */

struct rekey_job {
	struct store_agent_rekey store;
	struct agent *agent;     /* agents are freed behind the store */
	struct jose_key *signing_key, *decryption_key;
};

static void job_free(struct rekey_job *job)
{
	free(job->store.old_signing_key);
	free(job->store.old_decryption_kid);
	free(job->store.signing_key);
	free(job->store.decryption_key);
	jose_key_free(job->signing_key);
	jose_key_free(job->decryption_key);
	free(job);
}

/* Former keys ------------------------------------------------------------------------------------------------------------------------ */

struct jose_keys *rekey_former(const struct agent_row *row)
{
	struct jose_keys *keys = jose_keys_new();
	json_t *array = row->former_keys != NULL ? jose_json_parse(bytes_of_string(row->former_keys)) : NULL, *entry;
	size_t index;
	json_array_foreach(array, index, entry) {
		struct jose_key *key = NULL;
		/* One that cannot be used, or is there twice, verifies nothing. */
		if (keys != NULL && jose_key_from_jwk(json_object_get(entry, "signing_key"), JOSE_SIGN, false, &key) == STATUS_OK && jose_keys_add(keys, key) != STATUS_OK)
			break;
	}
	json_decref(array);
	return keys;
}

bool rekey_is_former(const struct agent *agent, struct bytes hello, char **ret_payload, size_t *ret_size)
{
	static const char *const typs[] = { TYP_HELLO, NULL };
	return jose_verify(hello, typs, agent->former, ret_payload, ret_size, NULL, NULL) == JOSE_OK;
}

const char *hub_secret_kid(const struct agent *agent, const json_t *secrets)
{
	const char *kid = jose_key_id(agent->decryption);
	if (json_object_get(secrets, kid) != NULL)
		return kid;
	bool former = agent->former_until > clock_now_ms() / 1000 && json_object_get(secrets, agent->former_decryption_kid) != NULL;
	return former ? agent->former_decryption_kid : NULL;
}

/* Answering -------------------------------------------------------------------------------------------------------------------------- */

static void answer(struct session *session)
{
	struct agent *agent = session->agent;
	const struct rekeyed rekeyed = { session->hub->settings->issuer, agent->row.agent_id, clock_now_ms() / 1000, session->id, agent->signing_kid,
	                                 (char *)jose_key_id(agent->decryption) };
	if (session_send_signed(session, TYP_REKEYED, rekeyed_build(&rekeyed)) != STATUS_OK)
		session_end(session, 1011, "internal error");
}

static void refuse(struct session *session, const char *why)
{
	log_event(LOG_WARNING, "agent.rekey_refused", LOG_FIELDS({ LOG_AGENT_ID, session->agent->row.agent_id }, { "reason", why }), "new keys of %s are refused: %s",
		session->agent->row.name, why);
	session_end(session, 1008, why);
}

/* The channel greeted by the old key: what it has sent already still counts. */
static void replace_signing(struct rekey_job *job)
{
	struct agent *agent = job->agent;
	struct jose_keys *fresh = jose_keys_new();
	struct jose_key *key = job->signing_key, *old = NULL;
	job->signing_key = NULL;
	if (fresh == NULL || jose_keys_add(fresh, key) != STATUS_OK) {
		jose_keys_free(fresh);
		return;
	}
	if (jose_key_public(jose_keys_find(agent->verifiers, agent->signing_kid), &old) == STATUS_OK)
		(void)!jose_keys_add(agent->former, old);
	if (agent->session != NULL && agent->session->former == NULL)
		agent->session->former = agent->verifiers;
	else
		jose_keys_free(agent->verifiers);
	agent->verifiers = fresh;
	agent->key_used = false;
	snprintf(agent->signing_kid, sizeof agent->signing_kid, "%s", jose_key_id(key));
	free(agent->row.signing_key);
	agent->row.signing_key = job->store.signing_key;
	job->store.signing_key = NULL;
}

static void replace_decryption(struct rekey_job *job)
{
	struct agent *agent = job->agent;
	snprintf(agent->former_decryption_kid, sizeof agent->former_decryption_kid, "%s", jose_key_id(agent->decryption));
	agent->former_until = clock_now_ms() / 1000 + PORTAL_OVERLAP_S;
	jose_key_free(agent->decryption);
	agent->decryption = job->decryption_key;
	job->decryption_key = NULL;
	free(agent->row.decryption_key);
	agent->row.decryption_key = job->store.decryption_key;
	job->store.decryption_key = NULL;
}

static void on_rekeyed(enum status status, void *arg)
{
	struct rekey_job *job = arg;
	struct agent *agent = job->agent;
	char old_signing[JOSE_KID_SIZE], old_decryption[JOSE_KID_SIZE];
	agent->rekeying = false;
	bool accepted = status == STATUS_OK && job->store.accepted;
	if (accepted) {
		snprintf(old_signing, sizeof old_signing, "%s", agent->signing_kid);
		snprintf(old_decryption, sizeof old_decryption, "%s", jose_key_id(agent->decryption));
		if (job->signing_key != NULL)
			replace_signing(job);
		if (job->decryption_key != NULL)
			replace_decryption(job);
		log_event(LOG_NOTICE, "agent.rekeyed", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { "old_signing_key", old_signing }, { "signing_key", agent->signing_kid },
			{ "old_decryption_key", old_decryption }, { "decryption_key", jose_key_id(agent->decryption) }), "%s has replaced its keys", agent->row.name);
	} else if (status != STATUS_OK) {
		log_event(LOG_ERR, "store.failed", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { LOG_CODE, status_code(status) }), "new keys of an agent are not recorded");
	}
	/* Where the agent has connected again meanwhile it has asked there too. */
	struct session *session = agent->session;
	if (session != NULL && accepted)
		answer(session);
	else if (session != NULL && status != STATUS_OK)
		session_end(session, 1013, "the store does not take it: try again");
	else if (session != NULL)
		refuse(session, "a key that is or was in use, or too many within the hour");
	job_free(job);
}

/* Judging ---------------------------------------------------------------------------------------------------------------------------- */

static const char *judge(const struct session *session, const struct rekey *rekey, int64_t now)
{
	const struct agent *agent = session->agent;
	if (strcmp(rekey->agent_id, agent->row.agent_id) != 0)
		return "iss";
	if (strcmp(rekey->issuer, session->hub->settings->issuer) != 0)
		return "aud";
	if (rekey->iat > now + CLOCK_SKEW_S || rekey->iat < now - CLOCK_SKEW_S)
		return "iat";
	if (strcmp(rekey->session, session->id) != 0)
		return "session";
	if (rekey_proven(rekey) != JOSE_OK)
		return "proof";
	const char *signing = rekey->signing_key != NULL ? jose_key_id(rekey->signing_key) : agent->signing_kid;
	const char *decryption = rekey->decryption_key != NULL ? jose_key_id(rekey->decryption_key) : jose_key_id(agent->decryption);
	return strcmp(signing, decryption) == 0 ? "signing_key and decryption_key must differ" : NULL;
}

/* Moves out of `rekey` what is not in force already. Neither: nothing is to be done. */
static struct jose_key *take_fresh(struct jose_key **key, const char *present_kid)
{
	struct jose_key *fresh = *key != NULL && strcmp(jose_key_id(*key), present_kid) != 0 ? *key : NULL;
	if (fresh != NULL)
		*key = NULL;
	return fresh;
}

static char *jwk_text(const struct jose_key *key)
{
	json_t *jwk = key != NULL ? jose_key_public_jwk(key) : NULL;
	char *text = jwk != NULL ? json_dumps(jwk, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(jwk);
	return text;
}

static enum status submit(struct session *session, struct rekey *rekey, int64_t now)
{
	struct agent *agent = session->agent;
	struct rekey_job *job = calloc(1, sizeof *job);
	if (job == NULL)
		return STATUS_AGENT_INTERNAL;
	job->agent = agent;
	job->signing_key = take_fresh(&rekey->signing_key, agent->signing_kid);
	job->decryption_key = take_fresh(&rekey->decryption_key, jose_key_id(agent->decryption));
	memcpy(job->store.agent_id, agent->row.agent_id, UUID_SIZE);
	job->store.now = now;
	job->store.old_signing_key = strdup(agent->row.signing_key);
	job->store.old_decryption_kid = strdup(jose_key_id(agent->decryption));
	job->store.signing_key = jwk_text(job->signing_key);
	job->store.decryption_key = jwk_text(job->decryption_key);
	enum status status = STATUS_OK;
	if (job->signing_key == NULL && job->decryption_key == NULL) {
		answer(session);
		job_free(job);
		return STATUS_OK;
	}
	bool copied = job->store.old_signing_key != NULL && job->store.old_decryption_kid != NULL && !job->store.signing_key == !job->signing_key &&
	              !job->store.decryption_key == !job->decryption_key;
	status = copied ? database_submit(session->hub->database, store_agent_rekey, on_rekeyed, job) : STATUS_AGENT_INTERNAL;
	if (status != STATUS_OK)
		job_free(job);
	else
		agent->rekeying = true;
	return status;
}

void session_take_rekey(struct session *session, struct bytes payload)
{
	struct rekey rekey = { 0 };
	int64_t now = clock_now_ms() / 1000;
	const char *why = NULL;
	if (rekey_parse(payload, &rekey, &why) == STATUS_OK)
		why = judge(session, &rekey, now);
	if (why != NULL)
		refuse(session, why);
	/* While one is on its way to the store, its answer answers the same once more. */
	else if (!session->agent->rekeying && submit(session, &rekey, now) != STATUS_OK)
		session_end(session, 1013, "busy: try again");
	rekey_clear(&rekey);
}
