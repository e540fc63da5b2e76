/* jose: the strict JOSE profile of proto/README.md section 2, on OpenSSL's EVP: ES256 and ECDH-ES + A256GCM over P-256, compact
 * serialization, exact headers (RFC 7515, 7516, 7517, 7518, 7638, 8725). Pure but for randomness in signing and encryption.
 *
 *     struct jose_key *key;
 *     jose_key_generate(JOSE_SIGN, &key);
 *     char *jws;
 *     jose_sign(key, "wb-result+jwt", payload, &jws);
 *
 * Failures: every check has its own enum jose_reason, so that an implementer of the other side is told which one failed; the
 * status is chosen by the caller. A key is used from one thread at a time (contexts are kept in it). */
#ifndef PROTO_JOSE_H
#define PROTO_JOSE_H

#include <jansson.h>

#include "base/bytes.h"
#include "base/secret.h"
#include "base/status.h"

#define JOSE_KID_SIZE 44 /* 43 characters of RFC 7638 thumbprint and a NUL */
#define JOSE_TYP_SIZE 64

enum jose_use { JOSE_SIGN, JOSE_DECRYPT }; /* alg ES256 use sig | alg ECDH-ES use enc */

enum jose_reason {
	JOSE_OK,
	JOSE_FORM,        /* "form": not three (JWS) or five (JWE) parts, or too long */
	JOSE_BASE64,      /* "base64url" */
	JOSE_HEADER,      /* "header": not a JSON object, repeated, missing or other members */
	JOSE_ALG,         /* "alg" */
	JOSE_ENC,         /* "enc" */
	JOSE_TYP,         /* "typ" */
	JOSE_KID,         /* "kid": no such key */
	JOSE_EPK,         /* "epk": not a P-256 point of exactly four members */
	JOSE_SIGNATURE,   /* "signature": wrong length or does not verify */
	JOSE_DECRYPTION,  /* "decryption": IV or tag of wrong size, or authentication failed */
	JOSE_INTERNAL     /* "internal": out of memory, or OpenSSL failed */
};
/* The word in quotes above, as it travels in a result's `reason`. */
const char *jose_reason_name(enum jose_reason reason);

struct jose_key;

enum status jose_key_generate(enum jose_use use, struct jose_key **ret_key) MUST_USE;
/* From a JWK object. Public: exactly kty, crv, x, y and optionally kid (must be the thumbprint), alg, use (must fit `use`); with_private: also d.
 * STATUS_LOCAL_INPUT for anything else: other curves, points off the curve, a `d` where none is wanted, unknown members. */
enum status jose_key_from_jwk(const json_t *jwk, enum jose_use use, bool with_private, struct jose_key **ret_key) MUST_USE;
/* The public JWK with kty, crv, x, y, kid, alg, use. A new reference; NULL when memory is out. */
json_t *jose_key_public_jwk(const struct jose_key *key);
/* The private JWK as JSON text in a secret, for a key file. */
enum status jose_key_private_jwk(const struct jose_key *key, struct secret *ret_json) MUST_USE;
/* A key file: a private JWK of at most 4,096 bytes, checked as secret_read_file does; written anew with mode 0600, fsync'ed, by rename. */
enum status jose_key_load(const char *path, enum jose_use use, struct jose_key **ret_key) MUST_USE;
enum status jose_key_store(const struct jose_key *key, const char *path) MUST_USE;
/* The writing of it alone: `text` and a line feed. */
enum status jose_file_write(const char *path, struct bytes text) MUST_USE;
/* The same key as a compact JWE with exactly alg "dir", enc "A256GCM", cty "jwk+json" (RFC 7517 section 7): a malloc'ed text. `wrap_key`: 32 bytes. */
#define JOSE_WRAP_KEY 32
enum status jose_key_wrap(const struct jose_key *key, const struct secret *wrap_key, char **ret_jwe) MUST_USE;
/* JOSE_DECRYPTION where `wrap_key` is another one or the text is torn behind its header; JOSE_HEADER also where what it holds is no such private key. */
enum jose_reason jose_key_unwrap(struct bytes jwe, const struct secret *wrap_key, enum jose_use use, struct jose_key **ret_key) MUST_USE;
void jose_key_free(struct jose_key *key);
/* RFC 7638 thumbprint; lives as long as the key. */
const char *jose_key_id(const struct jose_key *key);
enum jose_use jose_key_use(const struct jose_key *key);
/* A second, independent handle on the public half. */
enum status jose_key_public(const struct jose_key *key, struct jose_key **ret_public) MUST_USE;

/* A set of public verification keys, by kid. At most 16. */
struct jose_keys;
struct jose_keys *jose_keys_new(void);
void jose_keys_free(struct jose_keys *keys);
/* Takes the key. STATUS_LOCAL_INPUT where the set is full or has that kid. */
enum status jose_keys_add(struct jose_keys *keys, struct jose_key *take_key) MUST_USE;
struct jose_key *jose_keys_find(const struct jose_keys *keys, const char *kid);
unsigned jose_keys_count(const struct jose_keys *keys);

/* JWS ------------------------------------------------------------------------------------------------------------------------------- */

/* A malloc'ed NUL-terminated compact JWS over `payload`. */
enum status jose_sign(struct jose_key *key, const char *typ, struct bytes payload, char **ret_jws) MUST_USE;

/* Verifies: exact header, `typ` one of `typs` (NULL-terminated), kid in `keys`, signature. Only then is the payload there: malloc'ed,
 * NUL-terminated beyond ret_size, not parsed. `ret_typ` (may be NULL) is the row of `typs`, `ret_key` (may be NULL) borrowed from `keys`. */
enum jose_reason jose_verify(struct bytes jws, const char *const *typs, const struct jose_keys *keys,
                             char **ret_payload, size_t *ret_size, const char **ret_typ, struct jose_key **ret_key) MUST_USE;

/* Header and payload, without the signature: what was said. A good ECDSA signature (r, s) makes another one, (r, n - s), without any key: whether two frames are the same message is told by this part alone.
 * The whole where there is no dot. */
struct bytes jose_signed_part(struct bytes jws);
/* The header's typ, to choose what is to be done with a frame; not to be believed before jose_verify has found the same. `keys`: those that will verify it, or NULL. */
enum jose_reason jose_peek_typ(const struct jose_keys *keys, struct bytes jws, char ret_typ[JOSE_TYP_SIZE]) MUST_USE;

/* For the two messages whose key is found by the payload (enrolment, hello): checks header and typ, gives kid and the UNVERIFIED payload.
 * Nothing in it may be believed before jose_verify. */
enum jose_reason jose_peek_unverified(struct bytes jws, const char *typ, char ret_kid[JOSE_KID_SIZE], json_t **ret_payload) MUST_USE;

/* JWE ------------------------------------------------------------------------------------------------------------------------------- */

enum status jose_encrypt(struct jose_key *recipient, struct bytes plaintext, char **ret_jwe) MUST_USE;
/* `keys`: the agent's decryption keys (present, and retired within their overlap), NULL-terminated. */
enum jose_reason jose_decrypt(struct bytes jwe, struct jose_key *const *keys, struct secret *ret_plaintext) MUST_USE;
/* The kid of a JWE without decrypting it: header checks only. */
enum jose_reason jose_jwe_kid(struct bytes jwe, char ret_kid[JOSE_KID_SIZE]) MUST_USE;

/* JSON as this protocol wants it: UTF-8 without BOM, duplicates refused, nothing behind it, at most 32 levels deep (checked before jansson, which recurses). NULL where it is not; where memory is out
 * NULL too, with ENOMEM as errno, which is another value or 0 else. */
json_t *jose_json_parse(struct bytes text);

#endif
