/* http_internal: what http.c and http_connection.c share; nobody else includes it. http_connection.c: what a connection may cost before anybody is known behind it: how many there are, how long a request
 * takes, how many octets and reads. */
#ifndef SERVICE_HTTP_INTERNAL_H
#define SERVICE_HTTP_INTERNAL_H

#include "service/http.h"

#define MAX_HEADERS 16384

struct http {
	struct http_options options;
	struct evhttp *server;
	struct evconnlistener *listener;
	unsigned connections;
	bool stopped, freed;
	struct exchange *running;   /* whose handler runs now; NULL once it has ended */
	struct upgraded *upgraded;
};

/* Once, before the first connection. False: OpenSSL has no room for it. */
bool connection_init(void);
/* evhttp's: makes the bufferevent of a new connection; its argument is the struct http. */
struct bufferevent *connection_bufferevent(struct event_base *base, void *arg);
/* The listener's: nothing is accepted for a moment. The argument is evhttp's. */
void connection_accept_failed(struct evconnlistener *listener, void *arg);
/* The request is here, or (`runs`) an answer is: from then on the next one's time runs. */
void connection_set_deadline(struct evhttp_request *request, bool runs);
/* No callback and no limit of HTTP's from here. */
void connection_leave_http(struct bufferevent *bev);

#endif
