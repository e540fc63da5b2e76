/* HTTP requests from a stranger to the service, over TLS as always (by a shared key, so that a handshake costs little): evhttp and what service/http.c refuses beyond it. A handler gets only what
 * its route allows, and every exchange is answered. */
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "service/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_BODY = 4096 };

static struct event_base *base;
static struct event *late;
static struct http *http;
static SSL_CTX *client;
static struct sockaddr_in address = { .sin_family = AF_INET };
static unsigned events;

static unsigned show_key(SSL *ssl, const char *hint, char *identity, unsigned max_identity, unsigned char *key, unsigned max_key)
{
	strcpy(identity, "fuzz");
	memset(key, 7, 16);
	return 16;
}

static unsigned know_key(SSL *ssl, const char *identity, unsigned char *key, unsigned max_key)
{
	memset(key, 7, 16);
	return 16;
}

static void must_be_text(struct exchange *exchange)
{
	const char *parameter = exchange_parameter(exchange);
	if (parameter[0] != 0 && !uuid_valid(parameter))
		abort();
}

static void on_read_route(struct exchange *exchange, void *arg)
{
	must_be_text(exchange);
	if (exchange_body(exchange).size > 0)
		abort();
	exchange_answer(exchange, 200, json_pack("{s:s}", "path", exchange_parameter(exchange)));
}

static void on_write_route(struct exchange *exchange, void *arg)
{
	must_be_text(exchange);
	if (exchange_body(exchange).size > MAX_BODY || exchange_peer(exchange)[0] == 0)
		abort();
	exchange_answer(exchange, exchange_body(exchange).size > 0 ? 201 : 204, exchange_body(exchange).size > 0 ? json_pack("{s:b}", "ok", 1) : NULL);
}

static void on_upgrade_route(struct exchange *exchange, void *arg)
{
	if (exchange_header(exchange, "Upgrade") == NULL)
		exchange_problem(exchange, 426, NULL, "only a WebSocket");
	else
		upgraded_release(exchange_upgrade(exchange, "accept", "writeback.v1"));
}

static void on_authorize(struct exchange *exchange, const uint8_t hash[32], void *arg)
{
	http_authorized(exchange, hash[0] < 8 ? STATUS_AGENT_JOURNAL : STATUS_OK, hash[0] & 1);
}

static void on_client_event(struct bufferevent *bev, short what, void *arg)
{
	events |= (unsigned)what;
}

static SSL_CTX *context(const SSL_METHOD *method)
{
	SSL_CTX *context = SSL_CTX_new(method);
	SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
	if (SSL_CTX_set_cipher_list(context, "PSK-AES128-GCM-SHA256") != 1)
		abort();
	SSL_CTX_set_psk_client_callback(context, show_key);
	SSL_CTX_set_psk_server_callback(context, know_key);
	return context;
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	abort();
}

static void start(void)
{
	static const struct http_route routes[] = {
		{ EVHTTP_REQ_GET, "/v1/operations/{}", HTTP_OPEN, NULL, on_read_route },
		{ EVHTTP_REQ_POST, "/v1/operations", HTTP_API_KEY, "application/json", on_write_route },
		{ EVHTTP_REQ_POST, "/v1/agents", HTTP_OPEN, "application/jose", on_write_route },
		{ EVHTTP_REQ_DELETE, "/v1/agents/{}", HTTP_API_KEY, NULL, on_read_route },
		{ EVHTTP_REQ_GET, "/v1/agents/{}", HTTP_OPEN, NULL, on_read_route },
		{ EVHTTP_REQ_GET, "/v1/agent", HTTP_OPEN, NULL, on_upgrade_route },
		{ 0 },
	};
	unsigned port = 0;
	char *why = NULL;
	http_memory_init();
	log_set_level(LOG_CRIT);
	base = event_base_new();
	late = evtimer_new(base, on_late, NULL);
	struct http_options options = { .base = base, .tls = context(TLS_server_method()), .max_connections = 100, .max_body = MAX_BODY, .request_ms = 30000, .routes = routes, .authorize = on_authorize };
	if (http_new(&options, &http, &why) != STATUS_OK || http_listen(http, "127.0.0.1", 0, &port, &why) != STATUS_OK)
		abort();
	address.sin_port = htons((uint16_t)port);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	client = context(TLS_client_method());
}

static void wait_until_connected(void)
{
	event_add(late, &(struct timeval){ 10, 0 });
	while ((events & (BEV_EVENT_CONNECTED | BEV_EVENT_EOF | BEV_EVENT_ERROR)) == 0)
		event_base_loop(base, EVLOOP_ONCE);
	event_del(late);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (base == NULL)
		start();
	if (size < 2 || size > 1 << 16)
		return 0;
	/* Reset at its end: a port must not be kept for every input. */
	struct linger linger = { 1, 0 };
	/* And a second record must not wait for the kernel's acknowledgement of the first: no turn here is as long. */
	int one = 1;
	events = 0;
	struct bufferevent *bev = bufferevent_openssl_socket_new(base, -1, SSL_new(client), BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(bev, NULL, NULL, on_client_event, NULL);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	/* Not a connect that waits: libFuzzer's alarm interrupts that on a busy machine. */
	if (bufferevent_socket_connect(bev, (struct sockaddr *)&address, sizeof address) < 0)
		abort();
	int fd = bufferevent_getfd(bev);
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) < 0)
		abort();
	wait_until_connected();
	if ((events & BEV_EVENT_CONNECTED) == 0)
		abort();
	/* Two records, of which the first comes alone where its bit is set. */
	size_t first = 1 + (data[0] & 0x7f) * (size - 2) / 0x7f;
	bufferevent_write(bev, data + 1, first);
	for (unsigned i = 0; i < ((data[0] & 0x80) != 0 ? 3 : 0); i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	if (first < size - 1)
		bufferevent_write(bev, data + 1 + first, size - 1 - first);
	for (unsigned i = 0; i < 12 && (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) == 0; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	bufferevent_free(bev);
	for (unsigned i = 0; i < 4; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	return 0;
}
