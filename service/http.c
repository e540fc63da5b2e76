#include "service/http_internal.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "base/log.h"
#include "base/secret.h"

#define IDLE_SECONDS 30
#define API_KEY_PREFIX "Bearer wbk_"
#define API_KEY_CHARACTERS 43

struct exchange {
	struct http *http;
	struct evhttp_request *request;
	const struct http_route *route;
	char parameter[UUID_SIZE];
	struct secret body;
	char peer[64];
};

struct upgraded {
	struct upgraded *next;
	struct http *http;
	struct evhttp_connection *connection;
	struct bufferevent *bev;
	struct event *freeing;         /* in the next turn of the loop; http_free does not wait for that */
	char peer[64];
};

/* What evhttp does not refuse -------------------------------------------------------------------------------------------------------- */

static bool token(const char *name)
{
	return name[0] != '\0' && name[strspn(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] == '\0';
}

const char *http_headers_fault(const struct evkeyvalq *headers)
{
	unsigned lengths = 0, hosts = 0, encodings = 0;
	const struct evkeyval *header;
	TAILQ_FOREACH(header, headers, next) {
		if (!token(header->key))
			return "a header's name holds white space or another character that no name has";
		if (strcasecmp(header->key, "Content-Length") == 0) {
			lengths++;
			size_t digits = strspn(header->value, "0123456789");
			if (digits == 0 || digits > 10 || header->value[digits] != '\0')
				return "Content-Length must be digits";
		}
		hosts += strcasecmp(header->key, "Host") == 0;
		if (strcasecmp(header->key, "Transfer-Encoding") == 0) {
			encodings++;
			if (strcasecmp(header->value, "chunked") != 0)
				return "the only Transfer-Encoding here is chunked";
		}
	}
	if (lengths > 1)
		return "Content-Length stands twice";
	if (lengths + encodings > 1)
		return "Content-Length or one Transfer-Encoding, not both";
	if (hosts != 1)
		return "exactly one Host is needed";
	return NULL;
}

/* evhttp reads a body with these methods only: with others it would be taken for the next request. */
static const char *body_fault(struct evhttp_request *request)
{
	enum evhttp_cmd_type method = evhttp_request_get_command(request);
	const struct evkeyvalq *headers = evhttp_request_get_input_headers(request);
	const char *length = evhttp_find_header(headers, "Content-Length");
	bool reads = method == EVHTTP_REQ_POST || method == EVHTTP_REQ_PUT || method == EVHTTP_REQ_PATCH;
	if (!reads && (evhttp_find_header(headers, "Transfer-Encoding") != NULL || (length != NULL && length[strspn(length, "0")] != '\0')))
		return "this method has no body";
	/* evhttp copies a body that something stands behind, and what it copied from stays in its buffer as long as the connection. */
	if (evbuffer_get_length(evhttp_request_get_input_buffer(request)) > 0 &&
	    evbuffer_get_length(bufferevent_get_input(evhttp_connection_get_bufferevent(evhttp_request_get_connection(request)))) > 0)
		return "a request with a body is answered before the next one is sent";
	return NULL;
}

bool http_path_matches(const char *path, const char *target, char ret_parameter[UUID_SIZE])
{
	ret_parameter[0] = '\0';
	const char *brace = strstr(path, "{}");
	if (brace == NULL)
		return strcmp(path, target) == 0;
	size_t before = (size_t)(brace - path);
	if (strncmp(path, target, before) != 0 || strnlen(target + before, UUID_SIZE - 1) != UUID_SIZE - 1 || strcmp(target + before + UUID_SIZE - 1, brace + 2) != 0)
		return false;
	memcpy(ret_parameter, target + before, UUID_SIZE - 1);
	ret_parameter[UUID_SIZE - 1] = '\0';
	return uuid_valid(ret_parameter);
}

/* Exchanges -------------------------------------------------------------------------------------------------------------------------- */

static void wipe_buffer(struct evbuffer *buffer)
{
	struct evbuffer_iovec chains[64];
	int count;
	while ((count = evbuffer_peek(buffer, -1, NULL, chains, 64)) > 0) {
		size_t wiped = 0;
		for (int i = 0; i < count && i < 64; i++) {
			wipe(chains[i].iov_base, chains[i].iov_len);
			wiped += chains[i].iov_len;
		}
		evbuffer_drain(buffer, wiped);
	}
}

static void exchange_end(struct exchange *exchange)
{
	if (exchange->http->running == exchange)
		exchange->http->running = NULL;
	secret_wipe(&exchange->body);
	free(exchange);
}

static void common_headers(struct evhttp_request *request)
{
	static const char *const headers[][2] = {
		{ "Cache-Control", "no-store" },
		{ "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'" },
		{ "Referrer-Policy", "no-referrer" },
		{ "Strict-Transport-Security", "max-age=31536000" },
		{ "X-Content-Type-Options", "nosniff" },
	};
	for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
		evhttp_add_header(evhttp_request_get_output_headers(request), headers[i][0], headers[i][1]);
}

static const char *reason_phrase(int http_status)
{
	static const struct { int status; const char *phrase; } phrases[] = {
		{ 200, "OK" }, { 201, "Created" }, { 202, "Accepted" }, { 204, "No Content" }, { 400, "Bad Request" }, { 401, "Unauthorized" },
		{ 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" }, { 409, "Conflict" }, { 413, "Content Too Large" },
		{ 415, "Unsupported Media Type" }, { 422, "Unprocessable Content" }, { 426, "Upgrade Required" }, { 429, "Too Many Requests" },
		{ 500, "Internal Server Error" }, { 503, "Service Unavailable" },
	};
	for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
		if (phrases[i].status == http_status)
			return phrases[i].phrase;
	return "Status";
}

static void send_json(struct exchange *exchange, int http_status, const char *content_type, json_t *take_json)
{
	struct evhttp_request *request = exchange->request;
	struct evbuffer *body = evbuffer_new();
	AUTO_FREE char *text = take_json != NULL ? json_dumps(take_json, JSON_COMPACT) : NULL;
	json_decref(take_json);
	wipe_buffer(evhttp_request_get_input_buffer(request));
	common_headers(request);
	if (text != NULL && body != NULL) {
		evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", content_type);
		evbuffer_add(body, text, strlen(text));
		evbuffer_add(body, "\n", 1);
	}
	connection_set_deadline(request, true);
	evhttp_send_reply(request, http_status, reason_phrase(http_status), body);
	if (body != NULL)
		evbuffer_free(body);
	exchange_end(exchange);
}

void exchange_answer(struct exchange *exchange, int http_status, json_t *take_json)
{
	send_json(exchange, http_status, "application/json", take_json);
}

void exchange_problem(struct exchange *exchange, int http_status, const char *code, const char *detail)
{
	json_t *problem = json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title", reason_phrase(http_status), "status", http_status, "detail", detail);
	if (code != NULL)
		json_object_set_new(problem, "code", json_string(code));
	if (http_status == 401)
		exchange_add_header(exchange, "WWW-Authenticate", "Bearer");
	struct log_field fields[] = { { "peer", exchange->peer }, { LOG_CODE, code }, { "detail", detail }, { 0 } };
	log_event(http_status >= 500 ? LOG_WARNING : LOG_INFO, "api.refused", fields, "%d %s: %s", http_status, reason_phrase(http_status), detail);
	send_json(exchange, http_status, "application/problem+json", problem);
}

const char *exchange_parameter(const struct exchange *exchange)
{
	return exchange->parameter;
}

struct bytes exchange_body(const struct exchange *exchange)
{
	return secret_bytes(&exchange->body);
}

const char *exchange_header(const struct exchange *exchange, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(exchange->request), name);
}

const char *exchange_peer(const struct exchange *exchange)
{
	return exchange->peer;
}

void exchange_add_header(struct exchange *exchange, const char *name, const char *value)
{
	evhttp_add_header(evhttp_request_get_output_headers(exchange->request), name, value);
}

/* The way to a handler --------------------------------------------------------------------------------------------------------------- */

static const struct http_route *find_route(struct http *http, struct evhttp_request *request, char parameter[UUID_SIZE], char *ret_allow, size_t capacity)
{
	const char *target = evhttp_request_get_uri(request);
	size_t used = 0;
	ret_allow[0] = '\0';
	for (const struct http_route *route = http->options.routes; route->path != NULL; route++) {
		if (!http_path_matches(route->path, target, parameter))
			continue;
		if (route->method == evhttp_request_get_command(request))
			return route;
		const char *name = route->method == EVHTTP_REQ_GET ? "GET" : route->method == EVHTTP_REQ_POST ? "POST" : "DELETE";
		used += (size_t)snprintf(ret_allow + used, capacity - used, "%s%s", used > 0 ? ", " : "", name);
	}
	return NULL;
}

/* "application/json; charset=utf-8" is application/json. */
static bool content_type_is(const char *given, const char *wanted)
{
	size_t length = strlen(wanted);
	return given != NULL && strncasecmp(given, wanted, length) == 0 && (given[length] == '\0' || given[length] == ';' || given[length] == ' ');
}

static void run_handler(struct exchange *exchange)
{
	struct evbuffer *input = evhttp_request_get_input_buffer(exchange->request);
	size_t size = evbuffer_get_length(input);
	if (size > 0 && exchange->route->content_type == NULL) {
		exchange_problem(exchange, 400, NULL, "no body is expected here");
		return;
	}
	if (exchange->route->content_type != NULL && !content_type_is(exchange_header(exchange, "Content-Type"), exchange->route->content_type)) {
		exchange_problem(exchange, 415, NULL, exchange->route->content_type);
		return;
	}
	if (size > 0) {
		if (secret_new(size, &exchange->body) != STATUS_OK) {
			exchange_problem(exchange, 503, "service.overloaded", "no memory");
			return;
		}
		exchange->body.size = (size_t)evbuffer_copyout(input, exchange->body.data, size);
		wipe_buffer(input);
	}
	/* A handler that answers later must not keep the password until then. */
	struct http *http = exchange->http;
	http->running = exchange;
	exchange->route->handle(exchange, http->options.arg);
	if (http->running == exchange)
		secret_wipe(&exchange->body);
	http->running = NULL;
}

void http_authorized(struct exchange *exchange, enum status status, bool allowed)
{
	if (status != STATUS_OK)
		exchange_problem(exchange, 503, status_code(status), "the store cannot be asked");
	else if (!allowed)
		exchange_problem(exchange, 401, NULL, "the API key is unknown or revoked");
	else
		run_handler(exchange);
}

static void check_api_key(struct exchange *exchange)
{
	const char *given = exchange_header(exchange, "Authorization");
	size_t prefix = strlen(API_KEY_PREFIX);
	if (given == NULL || strncmp(given, API_KEY_PREFIX, prefix) != 0 || strlen(given) != prefix + API_KEY_CHARACTERS) {
		exchange_problem(exchange, 401, NULL, "an API key is needed: Authorization: Bearer wbk_...");
		return;
	}
	uint8_t hash[32];
	sha256(bytes_of_string(given + strlen("Bearer ")), hash);
	struct http *http = exchange->http;
	http->options.authorize(exchange, hash, http->options.arg);
}

static void on_request(struct evhttp_request *request, void *arg)
{
	struct http *http = arg;
	struct bufferevent *bev = evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
	struct exchange *exchange = bufferevent_openssl_get_ssl(bev) != NULL ? calloc(1, sizeof *exchange) : NULL;
	if (exchange == NULL) {
		evhttp_send_error(request, 503, "Service Unavailable");
		return;
	}
	exchange->http = http;
	exchange->request = request;
	char *address = NULL;
	ev_uint16_t port = 0;
	evhttp_connection_get_peer(evhttp_request_get_connection(request), &address, &port);
	snprintf(exchange->peer, sizeof exchange->peer, "%s:%u", address != NULL ? address : "?", port);
	connection_set_deadline(request, false);
	const char *fault = request->major != 1 ? "HTTP/1.1 is spoken here" : http_headers_fault(evhttp_request_get_input_headers(request));
	if (fault == NULL)
		fault = body_fault(request);
	if (fault != NULL) {
		/* Where the next request starts is not certain after such a one. */
		exchange_add_header(exchange, "Connection", "close");
		exchange_problem(exchange, 400, NULL, fault);
		return;
	}
	char allow[64];
	exchange->route = find_route(http, request, exchange->parameter, allow, sizeof allow);
	if (exchange->route != NULL) {
		if (exchange->route->auth == HTTP_API_KEY)
			check_api_key(exchange);
		else
			run_handler(exchange);
	} else if (allow[0] != '\0') {
		exchange_add_header(exchange, "Allow", allow);
		exchange_problem(exchange, 405, NULL, "this method is not known here");
	} else {
		exchange_problem(exchange, 404, NULL, "there is nothing here");
	}
}

/* Leaving HTTP ----------------------------------------------------------------------------------------------------------------------- */

struct upgraded *exchange_upgrade(struct exchange *exchange, const char *accept, const char *subprotocol)
{
	struct upgraded *upgraded = calloc(1, sizeof *upgraded);
	if (upgraded == NULL) {
		exchange_problem(exchange, 503, NULL, "no memory");
		return NULL;
	}
	upgraded->http = exchange->http;
	upgraded->connection = evhttp_request_get_connection(exchange->request);
	upgraded->bev = evhttp_connection_get_bufferevent(upgraded->connection);
	memcpy(upgraded->peer, exchange->peer, sizeof upgraded->peer);
	upgraded->next = exchange->http->upgraded;
	exchange->http->upgraded = upgraded;
	/* The request stays with the evhttp_connection and is freed with it; evhttp no longer hears of the connection. */
	connection_leave_http(upgraded->bev);
	int fd = bufferevent_getfd(upgraded->bev), one = 1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	evbuffer_add_printf(bufferevent_get_output(upgraded->bev),
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", accept, subprotocol);
	bufferevent_enable(upgraded->bev, EV_READ | EV_WRITE);
	exchange_end(exchange);
	return upgraded;
}

struct bufferevent *upgraded_bufferevent(const struct upgraded *upgraded)
{
	return upgraded->bev;
}

const char *upgraded_peer(const struct upgraded *upgraded)
{
	return upgraded->peer;
}

static void free_upgraded(evutil_socket_t fd, short what, void *arg)
{
	struct upgraded *upgraded = arg;
	struct upgraded **link = &upgraded->http->upgraded;
	while (*link != upgraded)
		link = &(*link)->next;
	*link = upgraded->next;
	if (upgraded->freeing != NULL)
		event_free(upgraded->freeing);
	evhttp_connection_free(upgraded->connection);
	free(upgraded);
}

void upgraded_release(struct upgraded *upgraded)
{
	if (upgraded == NULL)
		return;
	bufferevent_setcb(upgraded->bev, NULL, NULL, NULL, NULL);
	bufferevent_disable(upgraded->bev, EV_READ);
	SSL *ssl = bufferevent_openssl_get_ssl(upgraded->bev);
	if (ssl != NULL && SSL_is_init_finished(ssl))
		(void)SSL_shutdown(ssl);
	const struct timeval now = { 0, 0 };
	upgraded->freeing = evtimer_new(upgraded->http->options.base, free_upgraded, upgraded);
	if (upgraded->freeing == NULL || evtimer_add(upgraded->freeing, &now) != 0)
		free_upgraded(-1, 0, upgraded);
}

/* Memory ----------------------------------------------------------------------------------------------------------------------------- */

static void free_wiped(void *memory)
{
	if (memory != NULL)
		wipe(memory, malloc_usable_size(memory));
	free(memory);
}

void http_memory_init(void)
{
	event_set_mem_functions(malloc, realloc, free_wiped);
}

/* The server ------------------------------------------------------------------------------------------------------------------------- */

enum status http_new(const struct http_options *options, struct http **ret_http, char **ret_why)
{
	struct http *http = calloc(1, sizeof *http);
	if (http == NULL)
		return STATUS_AGENT_INTERNAL;
	http->options = *options;
	http->server = evhttp_new(options->base);
	if (http->server == NULL || !connection_init()) {
		http_free(http);
		return STATUS_AGENT_INTERNAL;
	}
	http_set_tls(http, options->tls);
	evhttp_set_bevcb(http->server, connection_bufferevent, http);
	evhttp_set_gencb(http->server, on_request, http);
	/* HEAD (and whatever evhttp has no name for) gets its 501 and the end of the connection from evhttp. */
	evhttp_set_allowed_methods(http->server, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_DELETE | EVHTTP_REQ_PUT | EVHTTP_REQ_PATCH | EVHTTP_REQ_OPTIONS);
	evhttp_set_max_headers_size(http->server, MAX_HEADERS);
	evhttp_set_max_body_size(http->server, (ev_ssize_t)options->max_body);
	evhttp_set_timeout(http->server, IDLE_SECONDS);
	*ret_http = http;
	return STATUS_OK;
}

enum status http_listen(struct http *http, const char *host, unsigned port, unsigned *ret_port, char **ret_why)
{
	char service[8];
	snprintf(service, sizeof service, "%u", port);
	struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM }, *list = NULL;
	int error = getaddrinfo(host, service, &hints, &list);
	if (error != 0) {
		if (asprintf(ret_why, "%s: %s", host, gai_strerror(error)) < 0)
			*ret_why = NULL;
		return STATUS_LOCAL_CONFIG;
	}
	http->listener = evconnlistener_new_bind(http->options.base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 512,
		list->ai_addr, (int)list->ai_addrlen);
	freeaddrinfo(list);
	if (http->listener == NULL || evhttp_bind_listener(http->server, http->listener) == NULL) {
		if (asprintf(ret_why, "cannot listen on %s port %u: %s", host, port, strerror(errno)) < 0)
			*ret_why = NULL;
		return STATUS_LOCAL_SYSTEM;
	}
	evconnlistener_set_error_cb(http->listener, connection_accept_failed);
	struct sockaddr_storage bound;
	socklen_t size = sizeof bound;
	char text[8] = "0";
	if (getsockname(evconnlistener_get_fd(http->listener), (struct sockaddr *)&bound, &size) == 0)
		(void)getnameinfo((struct sockaddr *)&bound, size, NULL, 0, text, sizeof text, NI_NUMERICSERV);
	*ret_port = (unsigned)atoi(text);
	return STATUS_OK;
}

void http_set_tls(struct http *http, SSL_CTX *tls)
{
	SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
	http->options.tls = tls;
}

void http_stop_listening(struct http *http)
{
	http->stopped = true;
	if (http->listener == NULL)
		return;
	evconnlistener_disable(http->listener);
	evconnlistener_set_cb(http->listener, NULL, NULL);
}

void http_free(struct http *http)
{
	if (http == NULL)
		return;
	http->stopped = true;
	/* Those released in the last turn. */
	while (http->upgraded != NULL)
		free_upgraded(-1, 0, http->upgraded);
	if (http->server != NULL)
		evhttp_free(http->server);
	http->freed = true;
	if (http->connections == 0)
		free(http);
}
