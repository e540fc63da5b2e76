/* jose_internal: what the files of proto/jose share. Nobody else includes it. */
#ifndef PROTO_JOSE_INTERNAL_H
#define PROTO_JOSE_INTERNAL_H

#include <openssl/evp.h>

#include "proto/jose.h"

#define JOSE_MAX_SIZE 65536      /* a whole frame, proto/README.md section 5 */
#define JOSE_MAX_HEADER 1024
#define JOSE_MAX_KEYS 16
#define JOSE_COORDINATE 32
#define JOSE_COORDINATE_TEXT BASE64URL_SIZE(JOSE_COORDINATE)
#define JOSE_POINT (1 + 2 * JOSE_COORDINATE)
#define JOSE_SIGNATURE_SIZE 64
#define JOSE_IV 12
#define JOSE_TAG 16

/* One record for each use: the algorithm is the key's, never the message's. */
struct jose_algorithm {
	const char *alg;
	const char *use;
};
const struct jose_algorithm *jose_algorithm(enum jose_use use);

/* Fetching an algorithm or making a context costs as much as a third of the cryptography, so a key keeps its own. */
struct jose_key {
	enum jose_use use;
	bool is_private;
	uint8_t point[JOSE_POINT];        /* 0x04, x, y */
	char x[JOSE_COORDINATE_TEXT + 1], y[JOSE_COORDINATE_TEXT + 1];
	char kid[JOSE_KID_SIZE];
	EVP_PKEY *pkey;
	EVP_MD *sha256;
	EVP_MD_CTX *digest;
	EVP_PKEY_CTX *sign, *verify;      /* JOSE_SIGN; sign only with a private key */
	EVP_CIPHER *aes;                  /* JOSE_DECRYPT, like the rest */
	EVP_CIPHER_CTX *gcm;
	EVP_PKEY_CTX *derive;             /* only with a private key, like peer */
	EVP_PKEY *peer;                   /* takes each message's epk */
};

/* A peer sends the same few headers over and over. One whose signature was good is kept with what was read from it, and only a header of exactly the same bytes
 * is taken for it. */
#define JOSE_HEADERS_KEPT 8
struct jose_kept_header {
	uint8_t text[256];                /* as it stood in the frame, before the dot */
	size_t size;                      /* 0: none */
	char kid[JOSE_KID_SIZE], typ[JOSE_TYP_SIZE];
};
struct jose_kept_headers {
	struct jose_kept_header rows[JOSE_HEADERS_KEPT];
	unsigned next;                    /* this one is overwritten next */
};

struct jose_keys {
	unsigned count;
	struct jose_key *keys[JOSE_MAX_KEYS];
	struct jose_kept_headers *kept;   /* NULL: none are kept */
};

/* True where `text` has exactly `count` parts between dots. */
bool jose_split(struct bytes text, struct bytes *parts, unsigned count);
/* The JSON object of a header part: JOSE_BASE64 or JOSE_HEADER where it is none. */
enum jose_reason jose_header(struct bytes part, json_t **ret_header) MUST_USE;
/* Decodes into at most `capacity` bytes: `too_long` where it does not fit, JOSE_BASE64 where the text is wrong. */
enum jose_reason jose_decode(struct bytes part, uint8_t *out, size_t capacity, size_t *ret_size, enum jose_reason too_long) MUST_USE;
bool jose_member_is(const json_t *object, const char *name, const char *value);
/* x and y of an EC key on P-256, checked in form only: neither on the curve nor for other members. */
bool jose_point_read(const json_t *jwk, uint8_t ret_point[JOSE_POINT]);
/* SHA-256 over the parts, with the key's context. */
bool jose_digest(const struct jose_key *key, const struct bytes *parts, unsigned count, uint8_t ret_digest[32]);

#endif
