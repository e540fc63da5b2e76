/* enrolled: makes an identity that of an enrolled agent, by a service of the test's own. For tests. */
#ifndef TESTS_ENROLLED_H
#define TESTS_ENROLLED_H

#include <stdlib.h>
#include <string.h>

#include "agent/identity.h"

#define ISSUER "https://reset.example.org"
#define AGENT "6f9619ff-8b86-4d01-b42d-00c04fc964ff"

/* The key set of the answer, good for a day from `now` (seconds); `done` as enrolment_finish has it. The caller frees it. */
static inline char *enroll(struct identity *identity, int64_t now, identity_done done, void *arg)
{
	struct jose_key *root, *keys[1];
	struct enrolment enrolment;
	char *jws = NULL, *set = NULL, ticket[92] = "";
	memset(ticket, 'a', sizeof ticket - 1);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &root), STATUS_OK);
	assert_int_equal(jose_key_generate(JOSE_SIGN, &keys[0]), STATUS_OK);
	json_t *jwk = jose_key_public_jwk(root);
	assert_int_equal(enrolment_begin(ISSUER, jwk, "host", ticket, now, &enrolment, &jws), STATUS_OK);
	char *payload = key_set_build(ISSUER, now, now + 86400, 1, keys, 1);
	assert_int_equal(jose_sign(root, TYP_KEYS, bytes_of_string(payload), &set), STATUS_OK);
	assert_int_equal(enrolment_finish(&enrolment, identity, &(struct enrolment_answer){ AGENT, set }, now, done, arg), STATUS_OK);
	free(jws);
	free(payload);
	json_decref(jwk);
	jose_key_free(root);
	jose_key_free(keys[0]);
	return set;
}

#endif
