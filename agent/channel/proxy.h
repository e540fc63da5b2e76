/* proxy: asks an HTTP proxy for a tunnel (CONNECT, RFC 9110 section 9.3.6) on a connected socket. The credentials, if any, are sent at once (Basic, RFC 7617): a proxy
 * that answers 407 does not want these, and asking again would only count against the account. */
#ifndef AGENT_CHANNEL_PROXY_H
#define AGENT_CHANNEL_PROXY_H

#include <event2/event.h>
#include <stdint.h>

#include "base/secret.h"
#include "base/status.h"

struct proxy;

struct proxy_result {
	enum status status;    /* ok, channel.proxy_auth (407), channel.proxy_refused, channel.refused, channel.timeout */
	int fd;                /* the callee's where ok, else -1 */
	unsigned http_status;  /* 0: none was given */
	unsigned retry_after;
	char why[160];
};
/* Exactly once, on the loop and never from inside proxy_new; the owner frees the proxy, here too. */
typedef void (*proxy_done)(const struct proxy_result *result, void *arg);

/* `authority`: "host:port" of the tunnel's end (brackets round an IPv6 address). `username` NULL: no credentials; `password` is borrowed for the call. */
enum status proxy_new(struct event_base *base, int take_fd, const char *authority, const char *username, const struct secret *password,
                      proxy_done done, void *arg, struct proxy **ret_proxy) MUST_USE;
void proxy_free(struct proxy *proxy);

/* The request, in a secret since the credentials are in it. */
enum status proxy_request(const char *authority, const char *username, const struct secret *password, struct secret *ret_request) MUST_USE;

#endif
