/* bytes: borrowed slices and the small encodings everyone needs. Pure: no I/O, no clock; only
 * random_bytes() and uuid_random() draw from the operating system, by OpenSSL's RAND_bytes. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/status.h"

/* Borrowed; never freed through this. data may be NULL where size is 0. */
struct bytes {
	const uint8_t *data;
	size_t size;
};

static inline struct bytes bytes_of(const void *data, size_t size) { return (struct bytes){ data, size }; }
struct bytes bytes_of_string(const char *text);
/* In constant time for equal sizes; sizes are not secret. */
bool bytes_equal(struct bytes a, struct bytes b);

/* Cleanup attribute for what malloc gave: AUTO_FREE char *text = …; NULL is fine. */
void auto_free(void *pointer_to_pointer);
#define AUTO_FREE __attribute__((cleanup(auto_free)))

/* Base64url, RFC 4648 section 5 without padding. Encoding writes base64url_size(size) characters and a NUL. */
#define BASE64URL_SIZE(size) (((size) * 4 + 2) / 3)
void base64url_encode(struct bytes in, char *out);
/* A malloc'ed string, NULL when memory is out. */
char *base64url_encode_new(struct bytes in);
/* Strict: no padding, no white space, no other alphabet, no stray bits, no length of 4n+1. `out` holds capacity bytes.
 * STATUS_LOCAL_INPUT where the text is wrong or does not fit. */
enum status base64url_decode(struct bytes text, uint8_t *out, size_t capacity, size_t *ret_size) MUST_USE;

/* Lower-case hexadecimal: 2 * size characters and a NUL; decoding takes both cases. */
void hex_encode(struct bytes in, char *out);
enum status hex_decode(struct bytes text, uint8_t *out, size_t capacity, size_t *ret_size) MUST_USE;

/* Valid UTF-8 by RFC 3629: shortest form, no surrogates, nothing above U+10FFFF. U+0000 is valid UTF-8. */
bool utf8_valid(struct bytes text);
/* For people's eyes, and for JSON: what is not valid (the cut end of a longer text), and control characters, become '?', octet by octet. */
void utf8_mend(char *text);
/* The number of UTF-16 code units of valid UTF-8 (what Active Directory counts as length). */
size_t utf8_utf16_units(struct bytes text);
/* UTF-16LE without BOM; `out` holds 2 * utf8_utf16_units(text) bytes. Text must be valid. */
void utf8_to_utf16le(struct bytes text, uint8_t *out);
/* The next code point of valid UTF-8 at *offset, which moves on. */
uint32_t utf8_next(struct bytes text, size_t *offset);

/* UUIDs, RFC 9562, as 36 lower-case characters and a NUL. */
#define UUID_SIZE 37
void uuid_random(char out[UUID_SIZE]);
/* Exactly 8-4-4-4-12 lower-case hexadecimal digits. */
bool uuid_valid(const char *text);
/* Active Directory's objectGUID: 16 octets whose first three fields are little-endian (MS-DTYP 2.3.4.2) <-> text. */
void guid_format(const uint8_t guid[16], char out[UUID_SIZE]);
enum status guid_parse(const char *text, uint8_t out[16]) MUST_USE;

void random_bytes(void *out, size_t size);
void sha256(struct bytes in, uint8_t out[32]);

#endif
