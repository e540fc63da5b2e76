/* http: the HTTPS server: evhttp over TLS with one table of routes, and the strictness that evhttp lacks.
 *
 * Refused with 400 and the end of the connection before any handler: Content-Length twice or not of digits only, Transfer-Encoding beside Content-Length or other
 * than chunked, white space in a header's name, no Host or two, HTTP other than 1.x, a body where the method has none, more input behind a body.
 * A request has a deadline (30 s) from accept, or from the last answer, to the end of its body, and may come in so many reads (1024, and one more for each 64 octets
 * of max_body): one in crumbs loses its connection, without an answer. What evhttp hides cannot be refused (a bare LF ends a
 * line for it): a reverse proxy in front does that. What evhttp itself refuses (413, 501, an unreadable first line) it answers with a page of HTML and the end of the connection. Paths are compared byte for byte with the raw request target: no decoding, no query, no dots.
 *
 * A handler gets an exchange and answers it once, then or later; every answer carries the security headers. A body is a secret: it lives while the handler runs
 * and is wiped behind it, evhttp's buffer too. All on the loop. */
#ifndef SERVICE_HTTP_H
#define SERVICE_HTTP_H

#include <event2/bufferevent.h>
#include <event2/http.h>
#include <jansson.h>
#include <openssl/ssl.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/status.h"

struct http;
struct exchange;

enum http_auth { HTTP_OPEN, HTTP_API_KEY };

struct http_route {
	enum evhttp_cmd_type method;
	const char *path;           /* "{}" stands for a UUID in lower case */
	enum http_auth auth;
	const char *content_type;   /* of the body; NULL: no body */
	void (*handle)(struct exchange *exchange, void *arg);
};

struct http_options {
	struct event_base *base;
	SSL_CTX *tls;
	unsigned max_connections;
	size_t max_body;
	int64_t request_ms;         /* from accept, or from the last answer, to the end of the next request's body */
	const struct http_route *routes; /* ends with a row without a path */
	/* Judges the SHA-256 of an API key; calls http_authorized then or later, or answers the exchange itself. */
	void (*authorize)(struct exchange *exchange, const uint8_t hash[32], void *arg);
	void *arg;                  /* of the handlers and of authorize */
};

/* Makes libevent wipe what it frees: parts of a body may be in there. Once, before anything else of libevent is called. */
void http_memory_init(void);

enum status http_new(const struct http_options *options, struct http **ret_http, char **ret_why) MUST_USE;
/* Listens; port 0 takes a free one. */
enum status http_listen(struct http *http, const char *host, unsigned port, unsigned *ret_port, char **ret_why) MUST_USE;
/* New connections get this context; taken by reference as at the start: it must live until the next one or http_free. */
void http_set_tls(struct http *http, SSL_CTX *tls);
/* No new connections; those that stand go on. */
void http_stop_listening(struct http *http);
/* Every exchange must have been answered and every upgraded connection released. */
void http_free(struct http *http);

/* The answer to authorize. */
void http_authorized(struct exchange *exchange, enum status status, bool allowed);

/* The UUID of the path; "" where the route has none. */
const char *exchange_parameter(const struct exchange *exchange);
/* Borrowed; only while the handler runs. */
struct bytes exchange_body(const struct exchange *exchange);
const char *exchange_header(const struct exchange *exchange, const char *name);
/* For logs: the peer's address. */
const char *exchange_peer(const struct exchange *exchange);
/* Set before the answer. */
void exchange_add_header(struct exchange *exchange, const char *name, const char *value);
/* Each of these ends the exchange. */
void exchange_answer(struct exchange *exchange, int http_status, json_t *take_json); /* NULL: no content */
void exchange_problem(struct exchange *exchange, int http_status, const char *code, const char *detail); /* code may be NULL */

/* A connection that has left HTTP. */
struct upgraded;
/* Writes the 101 with `accept` and the subprotocol and takes the connection: its bufferevent (callbacks and time limits cleared) is the caller's
 * until upgraded_release. NULL: out of memory; the exchange has been answered. */
struct upgraded *exchange_upgrade(struct exchange *exchange, const char *accept, const char *subprotocol);
struct bufferevent *upgraded_bufferevent(const struct upgraded *upgraded);
const char *upgraded_peer(const struct upgraded *upgraded);
/* Closes and frees it, at the end of the loop's turn. */
void upgraded_release(struct upgraded *upgraded);

/* The rules about headers, apart from evhttp, for tests: NULL where they are met, else what is wrong. `headers` as evhttp gives them. */
struct evkeyvalq;
const char *http_headers_fault(const struct evkeyvalq *headers);
/* Whether `target` is exactly `path`, with the UUID for "{}". */
bool http_path_matches(const char *path, const char *target, char ret_parameter[UUID_SIZE]);

#endif
