/* secret: a buffer for a password or a private key. It lives in OpenSSL's secure heap where there is one
 * (secret_heap_init), is wiped when freed or moved, is never copied and never printed. */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct secret {
	uint8_t *data;
	size_t size;     /* bytes in use */
	size_t capacity;
};

#define SECRET_EMPTY ((struct secret){ 0 })
#define AUTO_SECRET __attribute__((cleanup(secret_wipe)))

/* Once at the start of a program: a locked, guarded heap of 1 MiB that is left out of core dumps. Where memory may not be locked
 * (RLIMIT_MEMLOCK) the heap works unlocked and false says so. */
bool secret_heap_init(void);

/* Room for capacity bytes; STATUS_AGENT_INTERNAL when memory is out. */
enum status secret_new(size_t capacity, struct secret *ret_secret) MUST_USE;
/* Takes a copy of bytes that the caller wipes. */
enum status secret_from(struct bytes bytes, struct secret *ret_secret) MUST_USE;
/* Moves: `from` is empty afterwards, what `to` held is wiped. */
void secret_move(struct secret *to, struct secret *from);
/* Wipes and frees; leaves it empty; takes NULL and empty ones. */
void secret_wipe(struct secret *secret);
static inline struct bytes secret_bytes(const struct secret *secret) { return bytes_of(secret->data, secret->size); }

/* Reads a file that holds one secret line (its trailing newline is dropped) of at most 4,096 bytes. The file must be a regular file that
 * neither group nor others can write and others cannot read: else STATUS_LOCAL_PERMISSION. STATUS_LOCAL_SYSTEM where it cannot be read (errno says why). */
enum status secret_read_file(const char *path, struct secret *ret_secret) MUST_USE;

/* Makes jansson allocate from a heap that wipes what it frees. Once, before the first JSON value. */
void secret_json_init(void);

/* Wipes memory; the compiler cannot leave it out. */
void wipe(void *data, size_t size);

#endif
