/* content: keyed hashes that tell "the same again" from "the same id for something else" (proto/README.md section 9) without keeping the password.
 *
 * What is kept as long as the operation is a hash of everything but the passwords. They have one of their own, by a random key of the operation: both are
 * forgotten with the final outcome, so that who reads the database later cannot try passwords against them. Pure but for the random key. */
#ifndef SERVICE_CONTENT_H
#define SERVICE_CONTENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

/* Of the body of POST /v1/operations, less `wait` and the passwords. False when memory is out. */
bool content_hash(const uint8_t key[32], json_t *body, uint8_t out[32]) MUST_USE;
/* Of both passwords; either may be empty. */
bool content_secret_hash(const uint8_t key[32], struct bytes new_password, struct bytes old_password, uint8_t out[32]) MUST_USE;

#endif
