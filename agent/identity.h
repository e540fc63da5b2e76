/* identity: who this agent is and whom it trusts: the files of the state directory.
 *
 *     identity.json    agent_id, issuer, the pinned root key, instance_id, thumbprints of its own keys
 *     signing.jwk, decryption.jwk    its private keys, mode 0600
 *     key-set.jws      the service's key set as last seen
 *
 * Not being enrolled is a valid state. On the loop's thread. */
#ifndef AGENT_IDENTITY_H
#define AGENT_IDENTITY_H

#include "proto/messages.h"

struct identity {
	bool enrolled;
	char agent_id[UUID_SIZE];
	char instance_id[UUID_SIZE];
	char *issuer;
	char *name;
	struct jose_key *root;
	struct jose_key *signing, *decryption;
	struct key_set key_set;         /* keys NULL: none yet */
	char *key_set_jws;
	int64_t key_set_floor;          /* the highest version ever seen */
	int64_t boot;
	char *folder;                   /* the state directory; NULL: kept in memory only (tests) */
};

/* Makes the folder (0700) where it is missing and reads it. STATUS_OK also where not enrolled. STATUS_LOCAL_PERMISSION for a wrong owner or mode,
 * STATUS_LOCAL_TRUST for files that do not belong together, STATUS_LOCAL_INPUT for damaged ones; `why` gets a sentence. */
enum status identity_load(const char *folder, struct identity *ret_identity, char *why, size_t capacity) MUST_USE;
/* One agent a state directory: *ret_fd holds the lock as long as it is open. STATUS_LOCAL_SYSTEM where another program holds it. */
enum status identity_lock(const struct identity *identity, int *ret_fd, char *why, size_t capacity) MUST_USE;
void identity_clear(struct identity *identity);

/* A key set as the service showed it: verified with the root, its version not below the floor, the same version with the same bytes. Becomes the key set in
 * force and is written to the folder. *ret_changed: it is another one than before. STATUS_LOCAL_TRUST or STATUS_LOCAL_INPUT otherwise. */
enum status identity_adopt_key_set(struct identity *identity, struct bytes jws, int64_t now_s, bool *ret_changed) MUST_USE;
/* True while there is a key set and it has not expired. */
bool identity_trusts(const struct identity *identity, int64_t now_s);

/* Enrolment in two steps: keys are made and kept in memory until the service has answered. */
struct enrolment {
	char *issuer;
	char *name;
	struct jose_key *root;
	struct jose_key *signing, *decryption;
};
enum status enrolment_begin(const char *issuer, const json_t *root_key, const char *name, const char *ticket, int64_t now_s,
                            struct enrolment *ret_enrolment, char **ret_jws) MUST_USE;
/* Verifies the key set with the root that was pinned at the beginning and writes everything durably; `identity` becomes the new one. */
enum status enrolment_finish(struct enrolment *enrolment, struct identity *identity, const char *agent_id, const char *key_set, int64_t now_s,
                             char *why, size_t capacity) MUST_USE;
void enrolment_clear(struct enrolment *enrolment);

#endif
