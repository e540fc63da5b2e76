/* keys: the service's own keys in its state directory.
 *
 *     root.jwk          private root key: signs key sets and nothing else; belongs offline after `init`
 *     root-public.jwk   its public half: what agents pin
 *     signing.jwk       private key that signs requests, greetings and acknowledgements
 *     key-set.jws       the key set, signed by the root
 *
 * Files are read and written at start, at a reload and by the command line only. */
#ifndef SERVICE_KEYS_H
#define SERVICE_KEYS_H

#include <jansson.h>

#include "base/status.h"
#include "proto/jose.h"

struct keys {
	struct jose_key *root;      /* public half */
	struct jose_key *signing;
	char *key_set;              /* compact JWS */
	int64_t version, expires;   /* of the key set */
};

#define KEY_SET_LIFETIME_S (366 * 86400)
#define KEY_SET_MAX_KEYS 3 /* the newest signing key and the two before it: a request is redelivered with the signature it has */

/* Makes the directory (0700), the root key, the first signing key and version 1 of the key set. STATUS_LOCAL_INPUT where there are keys already. */
enum status keys_init(const char *directory, const char *issuer, int64_t now, char **ret_why) MUST_USE;
/* A new signing key and a key set of the next version, signed by `root_file` (NULL: root.jwk of the directory). drop_old: no other key is in it, so that agents believe
 * nothing any more that one of them has signed. */
enum status keys_rotate(const char *directory, const char *root_file, bool drop_old, const char *issuer, int64_t now, char **ret_why) MUST_USE;
/* STATUS_LOCAL_TRUST where the files do not belong together or the key set has expired. `ret_why` gets a malloc'ed sentence on failure. */
enum status keys_load(const char *directory, const char *issuer, int64_t now, struct keys *ret_keys, char **ret_why) MUST_USE;
void keys_clear(struct keys *keys);

#endif
