/* url: the addresses of channel.yaml. Pure and strict: no user, no fragment, no escapes in the host, nothing outside ASCII. */
#ifndef AGENT_CHANNEL_URL_H
#define AGENT_CHANNEL_URL_H

#include <stdint.h>

#include "base/status.h"

struct url {
	char host[256];       /* a DNS name, or an address without brackets */
	char authority[264];  /* for the Host header: brackets round an IPv6 address, ":port" where it is not the scheme's */
	uint16_t port;
	char path[1025];      /* with the query; "/" where the URL has none */
};

/* "wss://host[:port][/path][?query]". STATUS_LOCAL_INPUT and a static sentence otherwise. */
enum status url_parse(const char *text, struct url *ret_url, const char **ret_why) MUST_USE;
/* "host:port", the port required. */
enum status url_parse_address(const char *text, struct url *ret_url, const char **ret_why) MUST_USE;

#endif
