/* key_file: the agent's private keys on disk, one file a key, named by its use and its thumbprint: signing.THUMBPRINT.jwk, decryption.THUMBPRINT.jwk; mode 0600.
 *
 * The content is a JWK (RFC 7517) or, where there is a key to wrap with, that JWK as a JWE (jose_key_wrap). What is unwrapped lives in struct secret and in the key. */
#ifndef AGENT_KEY_FILE_H
#define AGENT_KEY_FILE_H

#include "proto/jose.h"

/* The key to wrap with: a regular file of exactly 32 bytes that others cannot read and neither group nor others can write. STATUS_LOCAL_CONFIG otherwise; `why` gets a sentence. */
enum status key_file_read_wrap(const char *path, struct secret *ret_wrap_key, char *why, size_t capacity) MUST_USE;

/* The key `kid` of the folder. `wrap_key` may be empty. A plain file is wrapped where there is a key for it, and one of an older version (signing.jwk) gets its name; both are logged.
 * STATUS_LOCAL_CONFIG: wrapped, and there is no key to unwrap it, or another; STATUS_LOCAL_TRUST: no such key; STATUS_LOCAL_INPUT: damaged; STATUS_LOCAL_PERMISSION: owner or mode. */
enum status key_file_load(const char *folder, enum jose_use use, const char *kid, const struct secret *wrap_key, struct jose_key **ret_key, char *why, size_t capacity) MUST_USE;
/* A file that is to be: what it will hold is in memory, so that who writes it needs neither the key nor what it is wrapped with. */
struct key_file {
	char *path;                     /* NULL: none */
	struct secret text;
};
enum status key_file_prepare(const char *folder, const struct jose_key *key, const struct secret *wrap_key, struct key_file *ret_file) MUST_USE;
/* Waits for the disk; durable when it returns. errno says why on STATUS_LOCAL_SYSTEM. */
enum status key_file_write(const struct key_file *file) MUST_USE;
void key_file_clear(struct key_file *file);
/* Is there a key file, whole ones alone? Its name. */
bool key_file_any(const char *folder, char *ret_name, size_t capacity);
/* Overwrites and removes every key of the folder whose thumbprint is none of `kids` (`count` of them, NULL for none). */
void key_file_keep_only(const char *folder, const char *const *kids, size_t count);

#endif
