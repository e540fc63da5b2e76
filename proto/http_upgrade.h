/* http_upgrade: the head of an HTTP/1.1 answer, as strictly as a program needs that speaks HTTP only to be let through: the answer to a WebSocket upgrade
 * (RFC 6455 section 4.2.2) and to a proxy's CONNECT (RFC 9110 section 9.3.6). Pure: no I/O.
 *
 *     size_t scanned = 0, head = 0;
 *     switch (http_answer_scan(input, &scanned, &head)) { … }        as often as bytes come
 *     http_answer_parse(bytes_of(input.data, head), &answer, &why);
 *     http_upgrade_judge(&answer, accept_key, &why);
 *
 * Refused: more than 16 KiB, more than 64 fields, a bare LF or CR, NUL and other control characters, folded lines, white space before the colon, a version other than HTTP/1.x. */
#ifndef PROTO_HTTP_UPGRADE_H
#define PROTO_HTTP_UPGRADE_H

#include "base/bytes.h"
#include "base/status.h"

#define HTTP_HEAD_MAX 16384
#define HTTP_FIELDS_MAX 64
#define HTTP_RETRY_AFTER_MAX 3600

enum http_scan { HTTP_SCAN_MORE, HTTP_SCAN_WHOLE, HTTP_SCAN_BAD };

/* Looks for the end of the head in all bytes received so far. *scanned is 0 at first and remembers how far it has looked; *ret_size is the size of
 * the head with its empty line. What lies behind belongs to the next protocol. BAD as soon as a byte cannot be part of a head, or it grows too long. */
enum http_scan http_answer_scan(struct bytes input, size_t *scanned, size_t *ret_size);

struct http_field {
	struct bytes name, value; /* borrowed from the head; the value without white space around it */
};

struct http_answer {
	unsigned minor;           /* of HTTP/1.x */
	unsigned status;          /* 100 to 599 */
	char reason[80];          /* the reason phrase, cut and printable: for logs */
	struct http_field fields[HTTP_FIELDS_MAX];
	size_t field_count;
	unsigned retry_after;     /* seconds, at most HTTP_RETRY_AFTER_MAX; 0 where absent, malformed or a date */
};

/* STATUS_CHANNEL_HTTP and a static sentence where the head is malformed. */
enum status http_answer_parse(struct bytes head, struct http_answer *ret_answer, const char **ret_why) MUST_USE;

/* Whether this answer opens a WebSocket for the key whose accept value is `accept`, with `subprotocol` and no extension.
 * STATUS_CHANNEL_REJECTED for 401 and 403; STATUS_CHANNEL_HTTP for every other status (redirects too) and for a 101 that is not right. */
enum status http_upgrade_judge(const struct http_answer *answer, const char *accept, const char *subprotocol, const char **ret_why) MUST_USE;

#endif
