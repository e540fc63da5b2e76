/* An agent's new keys (proto/README.md 5.3): the message, the proof inside it, the answer. */
#include "proto/messages_fields.h"

#include <string.h>

#include "proto/jose_internal.h"

#define MAX_ISSUER 2048
#define MAX_AUDIENCE 255
#define MAX_PROOF 8192

static const struct field rekey_fields[] = {
	{ "iss", &field_text, offsetof(struct rekey, agent_id), 1, MAX_AUDIENCE },
	{ "aud", &field_text, offsetof(struct rekey, issuer), 1, MAX_ISSUER },
	{ "iat", &field_int64, offsetof(struct rekey, iat), 1, MAX_TIME },
	{ "session", &field_uuid_text, offsetof(struct rekey, session) },
	{ "signing_key", &field_key, offsetof(struct rekey, signing_key), JOSE_SIGN, .optional = true },
	{ "decryption_key", &field_key, offsetof(struct rekey, decryption_key), JOSE_DECRYPT, .optional = true },
	{ "proof", &field_text, offsetof(struct rekey, proof), 1, MAX_PROOF, .optional = true },
};
static const struct form rekey_form = { FORM_FIELDS(rekey_fields), STATUS_LOCAL_INPUT };
/* The payload of the proof: the first four of those. */
static const struct form proof_form = { rekey_fields, 4, STATUS_LOCAL_INPUT };

void rekey_clear(struct rekey *rekey)
{
	form_clear(&rekey_form, rekey);
	*rekey = (struct rekey){ 0 };
}

enum status rekey_parse(struct bytes payload, struct rekey *ret_rekey, const char **ret_member)
{
	*ret_rekey = (struct rekey){ 0 };
	enum status status = form_parse(&rekey_form, payload, ret_rekey, ret_member);
	if (status != STATUS_OK)
		return status;
	*ret_member = !ret_rekey->signing_key && !ret_rekey->decryption_key ? "signing_key" : !ret_rekey->signing_key != !ret_rekey->proof ? "proof" : NULL;
	if (!*ret_member)
		return STATUS_OK;
	rekey_clear(ret_rekey);
	return STATUS_LOCAL_INPUT;
}

char *rekey_build(const struct rekey *rekey)
{
	struct rekey whole = *rekey;
	AUTO_FREE char *claims = form_build(&proof_form, rekey);
	AUTO_FREE char *proof = NULL;

	if (!claims || (rekey->signing_key && jose_sign(rekey->signing_key, TYP_REKEY_PROOF, bytes_of_string(claims), &proof) != STATUS_OK))
		return NULL;
	whole.proof = proof;
	return form_build(&rekey_form, &whole);
}

static bool same_claims(const struct rekey *a, const struct rekey *b)
{
	return strcmp(a->agent_id, b->agent_id) == 0 && strcmp(a->issuer, b->issuer) == 0 && a->iat == b->iat && strcmp(a->session, b->session) == 0;
}

enum jose_reason rekey_proven(const struct rekey *rekey)
{
	static const char *const typs[] = { TYP_REKEY_PROOF, NULL };
	const struct jose_keys keys = { .count = 1, .keys = { rekey->signing_key } };
	AUTO_FREE char *payload = NULL;
	struct rekey proof = { 0 };
	const char *member;
	size_t size;

	if (!rekey->signing_key)
		return JOSE_OK;
	enum jose_reason reason = jose_verify(bytes_of_string(rekey->proof), typs, &keys, &payload, &size, NULL, NULL);
	if (reason == JOSE_OK && (form_parse(&proof_form, bytes_of(payload, size), &proof, &member) != STATUS_OK || !same_claims(&proof, rekey)))
		reason = JOSE_SIGNATURE;
	rekey_clear(&proof);
	return reason;
}

static const struct field rekeyed_fields[] = {
	{ "iss", &field_text, offsetof(struct rekeyed, issuer), 1, MAX_ISSUER },
	{ "aud", &field_text, offsetof(struct rekeyed, agent_id), 1, MAX_AUDIENCE },
	{ "iat", &field_int64, offsetof(struct rekeyed, iat), 1, MAX_TIME },
	{ "session", &field_uuid_text, offsetof(struct rekeyed, session) },
	{ "signing_key", &field_random, offsetof(struct rekeyed, signing_key) },
	{ "decryption_key", &field_random, offsetof(struct rekeyed, decryption_key) },
};
static const struct form rekeyed_form = { FORM_FIELDS(rekeyed_fields), STATUS_LOCAL_INPUT };

enum status rekeyed_parse(struct bytes payload, struct rekeyed *ret_rekeyed, const char **ret_member)
{
	*ret_rekeyed = (struct rekeyed){ 0 };
	return form_parse(&rekeyed_form, payload, ret_rekeyed, ret_member);
}

char *rekeyed_build(const struct rekeyed *rekeyed)
{
	return form_build(&rekeyed_form, rekeyed);
}

void rekeyed_clear(struct rekeyed *rekeyed)
{
	form_clear(&rekeyed_form, rekeyed);
	*rekeyed = (struct rekeyed){ 0 };
}
