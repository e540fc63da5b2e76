#include "agent/channel/url.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define WSS_PORT 443

static bool is_name(const char *host)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
	size_t size = strlen(host), label = 0;
	if (!size || size > 253 || strspn(host, allowed) != size)
		return false;
	for (size_t i = 0; i < size; i++) {
		label = host[i] == '.' ? 0 : label + 1;
		if (label > 63 || (host[i] == '.' && (i == 0 || host[i - 1] == '.')))
			return false;
	}
	return true;
}

/* A name whose last label is a number would be taken for an address by some and for a name by others. */
static bool is_host(const char *host)
{
	struct in_addr address;
	const char *last = strrchr(host, '.');
	last = last ? last + 1 : host;
	if (*last && strspn(last, "0123456789") == strlen(last))
		return inet_pton(AF_INET, host, &address) == 1;
	return is_name(host);
}

static const char *parse_port(const char *text, size_t size, uint16_t *ret_port)
{
	unsigned port = 0;
	if (!size || size > 5 || text[0] == '0')
		return "the port is a number from 1 to 65535";
	for (size_t i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9')
			return "the port is a number from 1 to 65535";
		port = port * 10 + (unsigned)(text[i] - '0');
	}
	if (port > 65535)
		return "the port is a number from 1 to 65535";
	*ret_port = (uint16_t)port;
	return NULL;
}

/* host[:port], host an IPv6 address in brackets, an IPv4 address or a name. */
static const char *parse_authority(const char *text, size_t size, uint16_t default_port, struct url *url)
{
	bool bracketed = size && text[0] == '[';
	const char *end = bracketed ? memchr(text, ']', size) : memchr(text, ':', size);
	size_t start = bracketed ? 1 : 0, host;
	if (bracketed && !end)
		return "the IPv6 address has no closing bracket";
	host = end ? (size_t)(end - text) - start : size;
	if (!host || host >= sizeof url->host || memchr(text + start, 0, host))
		return "the host is missing or too long";
	memcpy(url->host, text + start, host);
	url->host[host] = 0;
	if (bracketed ? inet_pton(AF_INET6, url->host, &(struct in6_addr){ 0 }) != 1 : !is_host(url->host))
		return "the host is neither a DNS name nor an address";
	size_t used = start + host + (bracketed ? 1 : 0);
	url->port = default_port;
	if (used < size) {
		const char *why = text[used] == ':' ? parse_port(text + used + 1, size - used - 1, &url->port) : "something stands between host and port";
		if (why)
			return why;
	}
	if (!url->port)
		return "the port is missing";
	snprintf(url->authority, sizeof url->authority, bracketed ? "[%s]" : "%s", url->host);
	if (url->port != default_port)
		snprintf(url->authority + strlen(url->authority), sizeof url->authority - strlen(url->authority), ":%u", url->port);
	return NULL;
}

static enum status answer(const char *why, const char **ret_why)
{
	*ret_why = why ? why : "";
	return why ? STATUS_LOCAL_INPUT : STATUS_OK;
}

enum status url_parse_address(const char *text, struct url *ret_url, const char **ret_why)
{
	memset(ret_url, 0, sizeof *ret_url);
	return answer(parse_authority(text, strlen(text), 0, ret_url), ret_why);
}

enum status url_parse(const char *text, struct url *ret_url, const char **ret_why)
{
	memset(ret_url, 0, sizeof *ret_url);
	if (strncmp(text, "wss://", 6) != 0)
		return answer("it begins with wss://", ret_why);
	text += 6;
	size_t authority = strcspn(text, "/?#"), path = strlen(text) - authority;
	if (memchr(text, '@', authority))
		return answer("it names a user", ret_why);
	for (size_t i = 0; i < path; i++)
		if (text[authority + i] <= ' ' || text[authority + i] > '~' || text[authority + i] == '#')
			return answer("its path has a fragment or a character that must be escaped", ret_why);
	if (path + 1 >= sizeof ret_url->path)
		return answer("its path is too long", ret_why);
	snprintf(ret_url->path, sizeof ret_url->path, "%s%s", text[authority] == '/' ? "" : "/", text + authority);
	return answer(parse_authority(text, authority, WSS_PORT, ret_url), ret_why);
}
