#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "service/http_internal.h"

#define PAUSE_SECONDS 1     /* of accepting, where there is no descriptor left */
#define READ_MOST 256
#define REQUEST_READS 1024  /* and one for each RECORD_LEAST octets that a body may have */
#define RECORD_LEAST 64

/* Beside evhttp's own, which nobody is given before its first request. Lives as long as its SSL. */
struct connection {
	struct http *http;
	struct bufferevent *bev;
	struct event *deadline;
	size_t reads;               /* of this request */
};

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
	evconnlistener_enable(arg); /* nothing, once http_stop_listening has taken its callback */
}

/* EMFILE and the like: the connection stays in the kernel's queue, so accepting at once would only spin. The argument is evhttp's. */
void connection_accept_failed(struct evconnlistener *listener, void *arg)
{
	const struct timeval pause = { PAUSE_SECONDS, 0 };
	log_event(LOG_ERR, "http.accept_failed", NULL, "no connection can be accepted for a second: %s", strerror(EVUTIL_SOCKET_ERROR()));
	if (event_base_once(evconnlistener_get_base(listener), -1, EV_TIMEOUT, on_resume, listener, &pause) == 0)
		evconnlistener_disable(listener);
}

static size_t most_reads(const struct http *http)
{
	return REQUEST_READS + http->options.max_body / RECORD_LEAST;
}

static void log_crumbs(const struct connection *connection)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	char host[NI_MAXHOST] = "?", port[8] = "0", peer[sizeof host + sizeof port];
	if (getpeername(bufferevent_getfd(connection->bev), (struct sockaddr *)&address, &size) == 0)
		(void)getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(peer, sizeof peer, "%s:%s", host, port);
	struct log_field fields[] = { { "peer", peer }, { 0 } };
	log_event(LOG_INFO, "api.refused", fields, "a request in crumbs: %zu reads and no end", connection->reads);
}

/* evhttp's own time limits begin anew with every byte. */
static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct connection *connection = arg;
	if (connection->reads >= most_reads(connection->http))
		log_crumbs(connection);
	bufferevent_trigger_event(connection->bev, BEV_EVENT_TIMEOUT | BEV_EVENT_READING, BEV_TRIG_DEFER_CALLBACKS);
}

/* evhttp takes a chunk that came alone with all the memory that it was read into, the thousandfold. Ended in the next turn, unless this was the request's last part. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
	struct connection *connection = arg;
	const struct timeval now = { 0, 0 };
	/* Not again at the next read, which would put it off. */
	if (info->n_added > 0 && ++connection->reads == most_reads(connection->http))
		evtimer_add(connection->deadline, &now);
}

/* evhttp tells nobody that a connection has ended before its first request, but its SSL is freed in every case. */
static void ssl_freed(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
	struct connection *connection = pointer;
	if (connection == NULL)
		return;
	struct http *http = connection->http;
	event_free(connection->deadline);
	free(connection);
	if (http->connections-- == http->options.max_connections && !http->stopped)
		evconnlistener_enable(http->listener);
	/* libevent frees a bufferevent a turn later than it is told: the last one takes the server along. */
	if (http->freed && http->connections == 0)
		free(http);
}

static int ssl_index(void)
{
	static int index = -1;
	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, NULL, NULL, ssl_freed);
	return index;
}

bool connection_init(void)
{
	return ssl_index() >= 0;
}

static struct timeval request_interval(const struct http *http)
{
	return (struct timeval){ http->options.request_ms / 1000, http->options.request_ms % 1000 * 1000 };
}

static struct connection *connection_of(struct bufferevent *bev)
{
	return SSL_get_ex_data(bufferevent_openssl_get_ssl(bev), ssl_index());
}

void connection_set_deadline(struct evhttp_request *request, bool runs)
{
	struct connection *connection = connection_of(evhttp_connection_get_bufferevent(evhttp_request_get_connection(request)));
	const struct timeval interval = request_interval(connection->http);
	connection->reads = 0;
	if (runs)
		evtimer_add(connection->deadline, &interval);
	else
		evtimer_del(connection->deadline);
}

static struct connection *connection_new(struct http *http, struct event_base *base)
{
	struct connection *connection = calloc(1, sizeof *connection);
	struct event *deadline = connection != NULL ? evtimer_new(base, on_deadline, connection) : NULL;
	const struct timeval interval = request_interval(http);
	if (deadline == NULL || evtimer_add(deadline, &interval) != 0) {
		if (deadline != NULL)
			event_free(deadline);
		free(connection);
		return NULL;
	}
	*connection = (struct connection){ .http = http, .deadline = deadline };
	return connection;
}

struct bufferevent *connection_bufferevent(struct event_base *base, void *arg)
{
	struct http *http = arg;
	SSL *ssl = SSL_new(http->options.tls);
	struct connection *connection = ssl != NULL ? connection_new(http, base) : NULL;
	struct bufferevent *bev = NULL;
	if (connection != NULL) {
		/* The posted password must not stay in OpenSSL's record buffer. */
		SSL_set_options(ssl, SSL_OP_CLEANSE_PLAINTEXT);
		bev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
	}
	if (bev == NULL) { /* evhttp would make a plain one itself: on_request refuses what comes without TLS */
		if (connection != NULL)
			event_free(connection->deadline);
		free(connection);
		SSL_free(ssl);
		return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	}
	bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	/* evhttp reads a chunk's size line however long it is. */
	bufferevent_setwatermark(bev, EV_READ, 0, http->options.max_body + MAX_HEADERS + 4096);
	/* Else libevent takes another chain, of 1 KiB at least, for each two records: of one octet each they are a body's thousandfold. */
	bufferevent_set_max_single_read(bev, READ_MOST);
	connection->bev = bev;
	SSL_set_ex_data(ssl, ssl_index(), connection);
	if (++http->connections >= http->options.max_connections)
		evconnlistener_disable(http->listener);
	if (evbuffer_add_cb(bufferevent_get_input(bev), on_input, connection) == NULL) {
		bufferevent_free(bev);
		return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	}
	return bev;
}

void connection_leave_http(struct bufferevent *bev)
{
	bufferevent_setcb(bev, NULL, NULL, NULL, NULL);
	bufferevent_set_timeouts(bev, NULL, NULL);
	bufferevent_setwatermark(bev, EV_READ, 0, 0);
	evbuffer_remove_cb(bufferevent_get_input(bev), on_input, connection_of(bev));
}
