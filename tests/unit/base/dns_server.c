#include "dns_server.h"

#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static char where[64];

int __real_ares_init_options(ares_channel *channel, struct ares_options *options, int mask);
int __wrap_ares_init_options(ares_channel *channel, struct ares_options *options, int mask);
int __wrap_ares_init_options(ares_channel *channel, struct ares_options *options, int mask)
{
	int status = __real_ares_init_options(channel, options, mask);
	if (status == ARES_SUCCESS && where[0] && ares_set_servers_ports_csv(*channel, where) != ARES_SUCCESS)
		abort();
	return status;
}

static uint8_t *put16(uint8_t *at, unsigned value)
{
	*at++ = (uint8_t)(value >> 8);
	*at++ = (uint8_t)value;
	return at;
}

static uint8_t *put_name(uint8_t *at, const char *name)
{
	while (*name) {
		size_t size = strcspn(name, ".");
		*at++ = (uint8_t)size;
		memcpy(at, name, size);
		at += size;
		name += size + (name[size] == '.');
	}
	*at++ = 0;
	return at;
}

static uint8_t *put_head(uint8_t *at, const char *owner, unsigned type, uint32_t ttl, unsigned size)
{
	at = put_name(at, owner);
	at = put16(put16(at, type), 1);
	at = put16(put16(at, ttl >> 16), ttl & 0xffff);
	return put16(at, size);
}

static const struct dns_row *find_row(const struct dns_server *server, const char *name)
{
	for (const struct dns_row *row = server->rows; row && row->name; row++)
		if (strcasecmp(row->name, name) == 0)
			return row;
	return NULL;
}

/* Compressed (RFC 1035 4.1.4): they are owned by the question's name, and all but the first point to the target of the first. */
static uint8_t *put_nobodies(uint8_t *at, const uint8_t *message, const struct dns_row *row)
{
	static const uint8_t TARGET[] = "\6nobody\1x";
	unsigned place = 0;
	for (unsigned i = 0; i < row->nobodies; i++) {
		at = put16(put16(put16(at, 0xc00c), ns_t_srv), 1);
		at = put16(put16(at, row->ttl >> 16), row->ttl & 0xffff);
		at = put16(at, 6 + (place ? 2 : (unsigned)sizeof TARGET));
		at = put16(put16(put16(at, 0), 0), row->first_port + i);
		if (place) {
			at = put16(at, 0xc000 | place);
			continue;
		}
		place = (unsigned)(at - message);
		memcpy(at, TARGET, sizeof TARGET);
		at += sizeof TARGET;
	}
	return at;
}

static uint8_t *put_answers(uint8_t *at, const struct dns_row *row, unsigned type, unsigned *count)
{
	const char *owner = row->cname ? row->cname : row->name;
	uint8_t name[256], address[16];
	size_t size = row->cname ? (size_t)(put_name(name, row->cname) - name) : 0;
	if (row->cname) {
		at = put_head(at, row->name, ns_t_cname, row->ttl, (unsigned)size);
		memcpy(at, name, size);
		at += size;
		++*count;
	}
	for (size_t i = 0; type == ns_t_srv && i < 4 && row->srv[i].target; i++, ++*count) {
		size = (size_t)(put_name(name, row->srv[i].target) - name);
		at = put_head(at, owner, ns_t_srv, row->ttl, (unsigned)size + 6);
		at = put16(put16(put16(at, row->srv[i].priority), row->srv[i].weight), row->srv[i].port);
		memcpy(at, name, size);
		at += size;
	}
	const char *text = type == ns_t_a ? row->address : type == ns_t_aaaa ? row->address6 : NULL;
	if (text && inet_pton(type == ns_t_a ? AF_INET : AF_INET6, text, address) == 1) {
		size = type == ns_t_a ? 4 : 16;
		at = put_head(at, owner, type, row->ttl, (unsigned)size);
		memcpy(at, address, size);
		at += size;
		++*count;
	}
	return at;
}

static void answer(struct dns_server *server, uint8_t *query, size_t size, const struct sockaddr_storage *from, socklen_t from_size)
{
	uint8_t out[4096], *at;
	char *name;
	long name_size;
	unsigned count = 0;
	if (size < 17 || ares_expand_name(query + 12, query, (int)size, &name, &name_size) != ARES_SUCCESS)
		return;
	size_t question = 12 + (size_t)name_size + 4;
	unsigned type = (unsigned)query[question - 4] << 8 | query[question - 3];
	const struct dns_row *row = find_row(server, name);
	ares_free_string(name);
	memcpy(out, query, question);
	at = row ? put_answers(out + question, row, type, &count) : out + question;
	if (row && type == ns_t_srv) {
		at = put_nobodies(at, out, row);
		count += row->nobodies;
	}
	out[2] = 0x85;
	out[3] = (uint8_t)(0x80 | (row ? row->code : 3));
	put16(out + 6, count);
	put16(out + 8, 0);
	put16(out + 10, 0);
	size_t length = (size_t)(at - out);
	sendto(server->fd, out, row && row->cut ? length - 3 : length, 0, (const struct sockaddr *)from, from_size);
}

static void on_query(evutil_socket_t fd, short what, void *arg)
{
	struct dns_server *server = arg;
	uint8_t query[1024];
	struct sockaddr_storage from;
	socklen_t from_size = sizeof from;
	ssize_t size = recvfrom(fd, query, sizeof query, 0, (struct sockaddr *)&from, &from_size);
	server->queries++;
	if (size > 0 && !server->silent)
		answer(server, query, (size_t)size, &from, from_size);
}

void dns_server_start(struct dns_server *server, struct event_base *base)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	server->base = base;
	server->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (bind(server->fd, (struct sockaddr *)&address, sizeof address) != 0 || getsockname(server->fd, (struct sockaddr *)&address, &size) != 0)
		abort();
	snprintf(where, sizeof where, "127.0.0.1:%u", ntohs(address.sin_port));
	server->event = event_new(base, server->fd, EV_READ | EV_PERSIST, on_query, server);
	event_add(server->event, NULL);
}

void dns_server_stop(struct dns_server *server)
{
	event_free(server->event);
	close(server->fd);
	where[0] = 0;
}
