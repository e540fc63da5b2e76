/* dns_server: a DNS server on the test's own loop (UDP, loopback) with scripted answers. Linked with -Wl,--wrap=ares_init_options, it makes every c-ares channel of the test ask it. */
#ifndef TESTS_DNS_SERVER_H
#define TESTS_DNS_SERVER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct dns_srv {
	unsigned priority, weight, port;
	const char *target;            /* NULL ends the list */
};
struct dns_row {
	const char *name;              /* NULL ends the rows */
	struct dns_srv srv[4];         /* the answer to SRV */
	unsigned nobodies, first_port; /* so many more: nobody.x on this port and those behind it; 22 fit into a datagram */
	const char *cname;             /* put before it; NULL: none */
	const char *address;           /* the answer to A */
	const char *address6;          /* to AAAA */
	uint32_t ttl;
	unsigned code;                 /* RCODE; 2: SERVFAIL, 3: NXDOMAIN */
	bool cut;                      /* the answer ends in the middle */
};
struct dns_server;
/* Names that no row has are answered NXDOMAIN. `rows` may be exchanged while it runs. */
struct dns_server {
	struct event_base *base;
	const struct dns_row *rows;
	bool silent;
	unsigned queries;
	int fd;
	struct event *event;
};
void dns_server_start(struct dns_server *server, struct event_base *base);
void dns_server_stop(struct dns_server *server);

#endif
