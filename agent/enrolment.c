/* Enrolment: another agent comes to be (identity.h). */
#include <string.h>

#include "agent/identity_store.h"

enum status enrolment_begin(const char *issuer, const json_t *root_key, const char *name, const char *ticket, int64_t now_s,
                            struct enrolment *ret_enrolment, char **ret_jws)
{
	memset(ret_enrolment, 0, sizeof *ret_enrolment);
	enum status status = jose_key_from_jwk(root_key, JOSE_SIGN, false, &ret_enrolment->root);
	if (status == STATUS_OK)
		status = jose_key_generate(JOSE_SIGN, &ret_enrolment->signing);
	if (status == STATUS_OK)
		status = jose_key_generate(JOSE_DECRYPT, &ret_enrolment->decryption);
	if (status == STATUS_OK) {
		ret_enrolment->issuer = strdup(issuer);
		ret_enrolment->name = strdup(name);
		struct enroll enroll = { .issuer = (char *)issuer, .iat = now_s, .exp = now_s + 300, .ticket = (char *)ticket, .name = (char *)name,
		                         .signing_key = ret_enrolment->signing, .decryption_key = ret_enrolment->decryption };
		AUTO_FREE char *payload = enroll_build(&enroll);
		status = payload ? jose_sign(ret_enrolment->signing, TYP_ENROLL, bytes_of_string(payload), ret_jws) : STATUS_AGENT_INTERNAL;
		if (payload)
			wipe(payload, strlen(payload));
	}
	if (status != STATUS_OK)
		enrolment_clear(ret_enrolment);
	return status;
}

enum status enrolment_finish(struct enrolment *enrolment, struct identity *identity, const struct enrolment_answer *answer, int64_t now_s, identity_done done, void *arg)
{
	struct identity fresh = { .boot = identity->boot };
	enum status status = key_set_verify(bytes_of_string(answer->key_set), enrolment->root, enrolment->issuer, now_s, &fresh.key_set);
	if (status != STATUS_OK || !uuid_valid(answer->agent_id)) {
		key_set_clear(&fresh.key_set);
		return status != STATUS_OK ? status : STATUS_LOCAL_INPUT;
	}
	strcpy(fresh.agent_id, answer->agent_id);
	uuid_random(fresh.instance_id);
	fresh.folder = strdup(identity->folder);
	fresh.key_set_jws = strdup(answer->key_set);
	fresh.key_set_floor = fresh.key_set.version;
	fresh.issuer = enrolment->issuer;
	fresh.name = enrolment->name;
	fresh.root = enrolment->root;
	fresh.signing = enrolment->signing;
	fresh.decryption = enrolment->decryption;
	fresh.enrolled = true;
	fresh.made_at = now_s;
	fresh.key_set_unwritten = true;
	memset(enrolment, 0, sizeof *enrolment);
	if (identity->wrap_key.size > 0 && secret_from(secret_bytes(&identity->wrap_key), &fresh.wrap_key) != STATUS_OK) {
		identity_clear(&fresh);
		return STATUS_AGENT_INTERNAL;
	}
	identity_replace(identity, &fresh, done, arg);
	return STATUS_OK;
}

void enrolment_clear(struct enrolment *enrolment)
{
	free(enrolment->issuer);
	free(enrolment->name);
	jose_key_free(enrolment->root);
	jose_key_free(enrolment->signing);
	jose_key_free(enrolment->decryption);
	memset(enrolment, 0, sizeof *enrolment);
}
