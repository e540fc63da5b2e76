/* bench-service: the service's end of one channel as fast as this machine can play it: greets the agent that connects, then for each line
 * "OP TOTAL IN-FLIGHT FIRST-USER USERS" on standard input sends so many requests with so many in flight at once, to users benchNNN in turn, and prints one JSON
 * object: operations a second, latencies, outcomes. Requests are signed and encrypted as they are sent, so that passwords always differ; that work is this
 * program's, its CPU time is told apart. Not a service: no enrolment, no store. Used by bench.py. */
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/loop.h"
#include "base/tls.h"
#include "proto/messages.h"
#include "proto/websocket.h"

#define MOST_IN_FLIGHT 4096

struct flight {
	char request_id[UUID_SIZE];
	int64_t sent_us;
	bool active;
};

struct bench {
	struct event_base *base;
	SSL_CTX *tls;
	struct websocket *websocket;
	const char *issuer, *agent_id, *suffix;
	char *key_set;
	struct jose_key *signing, *recipient;
	struct jose_keys *agent_keys;
	bool greeted;
	char acks[64][UUID_SIZE];
	size_t ack_count;
	struct event *acknowledging;
	/* the run */
	enum operation op;
	unsigned total, in_flight, first_user, users, sent, done, applied;
	struct flight flights[MOST_IN_FLIGHT];
	int64_t *latencies;
	int64_t began_us;
	char first_other[64];
};

static void die(const char *what)
{
	fprintf(stderr, "bench-service: %s\n", what);
	exit(1);
}

static void send_signed(struct bench *bench, const char *typ, char *take_payload)
{
	AUTO_FREE char *jws = NULL;
	if (!take_payload || jose_sign(bench->signing, typ, bytes_of_string(take_payload), &jws) != STATUS_OK ||
	    websocket_send(bench->websocket, bytes_of_string(jws)) != STATUS_OK)
		die("cannot send");
	free(take_payload);
}

static void send_request(struct bench *bench, struct flight *flight)
{
	unsigned number = bench->sent++;
	char user[128], password[64];
	snprintf(user, sizeof user, "bench%03u@%s", bench->first_user + number % bench->users, bench->suffix);
	snprintf(password, sizeof password, "Bench-%08x-%u", (unsigned)clock_monotonic_us(), number);
	int64_t now = clock_now_ms() / 1000;
	struct request_claims claims = { .issuer = (char *)bench->issuer, .audience = (char *)bench->agent_id, .iat = now, .exp = now + 120, .op = bench->op,
	                                 .subject = { SUBJECT_UPN, user, NULL }, .unlock = true, .enforce_policy = true };
	uuid_random(claims.request_id);
	uuid_random(claims.operation_id);
	struct secret plaintext = SECRET_EMPTY;
	if (bench->op != OP_UNLOCK && (secret_claims_build(&claims, bytes_of_string(password), bytes_of(NULL, 0), &plaintext) != STATUS_OK ||
	                               jose_encrypt(bench->recipient, secret_bytes(&plaintext), &claims.secret) != STATUS_OK))
		die("cannot encrypt");
	memcpy(flight->request_id, claims.request_id, UUID_SIZE);
	flight->active = true;
	char *payload = request_build(&claims);
	flight->sent_us = clock_monotonic_us();
	send_signed(bench, TYP_REQUEST, payload);
	free(claims.secret);
	secret_wipe(&plaintext);
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void print_run(struct bench *bench)
{
	double seconds = (double)(clock_monotonic_us() - bench->began_us) / 1e6;
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
	qsort(bench->latencies, bench->done, sizeof *bench->latencies, by_value);
	printf("{\"total\": %u, \"applied\": %u, \"seconds\": %.4f, \"per_second\": %.1f, \"p50_us\": %ld, \"p99_us\": %ld, \"own_cpu_seconds\": %.3f, \"other\": \"%s\"}\n",
	       bench->done, bench->applied, seconds, bench->done / seconds, (long)bench->latencies[bench->done / 2],
	       (long)bench->latencies[bench->done - 1 - bench->done / 100], cpu, bench->first_other);
	fflush(stdout);
	free(bench->latencies);
	bench->latencies = NULL;
}

static void send_acks(evutil_socket_t fd, short what, void *arg)
{
	struct bench *bench = arg;
	struct ack ack = { .issuer = (char *)bench->issuer, .agent_id = (char *)bench->agent_id, .iat = clock_now_ms() / 1000, .request_ids = bench->acks, .count = bench->ack_count };
	if (bench->ack_count > 0 && bench->websocket)
		send_signed(bench, TYP_ACK, ack_build(&ack));
	bench->ack_count = 0;
}

/* As reset-service does: what becomes durable together is acknowledged together; a commit is played by what comes within 2 ms. */
static void acknowledge(struct bench *bench, const char *request_id)
{
	if (!*request_id)
		return;
	memcpy(bench->acks[bench->ack_count++], request_id, UUID_SIZE);
	struct timeval commit = { 0, 2000 };
	if (bench->ack_count == 64)
		send_acks(-1, 0, bench);
	else if (!evtimer_pending(bench->acknowledging, NULL))
		evtimer_add(bench->acknowledging, &commit);
}

static void take_result(struct bench *bench, const struct result *result)
{
	if (status_outcome(result->code) == OUTCOME_SETTLING)
		return;
	acknowledge(bench, result->request_id);
	if (!bench->latencies)
		return;
	for (unsigned i = 0; i < bench->in_flight; i++) {
		struct flight *flight = &bench->flights[i];
		if (!flight->active || strcmp(flight->request_id, result->request_id) != 0)
			continue;
		bench->latencies[bench->done++] = clock_monotonic_us() - flight->sent_us;
		flight->active = false;
		if (status_outcome(result->code) == OUTCOME_APPLIED)
			bench->applied++;
		else
			snprintf(bench->first_other, sizeof bench->first_other, "%s %s", status_code(result->code), result->reason ? result->reason : "");
		if (bench->sent < bench->total)
			send_request(bench, flight);
		else if (bench->done == bench->total)
			print_run(bench);
		return;
	}
}

static void welcome(struct bench *bench, const char *payload, size_t size)
{
	struct hello hello = { 0 };
	const char *member;
	if (hello_parse(bytes_of(payload, size), &hello, &member) != STATUS_OK)
		die("wrong hello");
	struct welcome answer = { .issuer = (char *)bench->issuer, .agent_id = (char *)bench->agent_id, .iat = clock_now_ms() / 1000, .nonce = hello.agent_nonce,
	                          .session = (char *)"0f9c1d1e-0000-4000-8000-000000000001", .max_frame_bytes = MAX_FRAME_BYTES };
	send_signed(bench, TYP_WELCOME, welcome_build(&answer));
	hello_clear(&hello);
	bench->greeted = true;
	printf("{\"ready\": true}\n");
	fflush(stdout);
}

static void on_message(struct websocket *websocket, struct bytes message, void *arg)
{
	static const char *const typs[] = { TYP_HELLO, TYP_RESULT, TYP_DRAIN, NULL };
	struct bench *bench = arg;
	AUTO_FREE char *payload = NULL;
	size_t size;
	const char *typ, *member;
	if (jose_verify(message, typs, bench->agent_keys, &payload, &size, &typ, NULL) != JOSE_OK)
		die("the agent's message does not verify");
	struct result result;
	if (strcmp(typ, TYP_HELLO) == 0)
		welcome(bench, payload, size);
	else if (strcmp(typ, TYP_RESULT) == 0) {
		if (result_parse(bytes_of(payload, size), &result, &member) != STATUS_OK)
			die("wrong result");
		take_result(bench, &result);
		result_clear(&result);
	}
}

static void on_closed(struct websocket *websocket, const struct websocket_closed *closed, void *arg)
{
	struct bench *bench = arg;
	websocket_free(websocket);
	if (bench->websocket == websocket)
		bench->websocket = NULL;
	bench->greeted = false;
}

static void greet(struct bench *bench)
{
	char nonce[NONCE_SIZE];
	nonce_random(nonce);
	struct challenge challenge = { .issuer = (char *)bench->issuer, .iat = clock_now_ms() / 1000, .nonce = nonce };
	if (websocket_send(bench->websocket, bytes_of_string(bench->key_set)) != STATUS_OK)
		die("cannot send");
	send_signed(bench, TYP_CHALLENGE, challenge_build(&challenge));
}

/* The upgrade's request: only its key matters here. */
static void on_upgrade(struct bufferevent *bev, void *arg)
{
	struct bench *bench = arg;
	struct evbuffer *input = bufferevent_get_input(bev), *output = bufferevent_get_output(bev);
	struct evbuffer_ptr end = evbuffer_search(input, "\r\n\r\n", 4, NULL);
	if (end.pos < 0)
		return;
	char request[4096] = "", accept[29];
	evbuffer_remove(input, request, (size_t)end.pos + 4 < sizeof request ? (size_t)end.pos + 4 : sizeof request - 1);
	char *key = strcasestr(request, "Sec-WebSocket-Key: ");
	if (!key)
		die("no upgrade");
	key += strlen("Sec-WebSocket-Key: ");
	key[strcspn(key, "\r")] = 0;
	if (!websocket_accept_key(key, accept))
		die("wrong key");
	evbuffer_add_printf(output, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
	                            "Sec-WebSocket-Protocol: " WEBSOCKET_SUBPROTOCOL "\r\n\r\n", accept);
	struct websocket_callbacks callbacks = { .message = on_message, .closed = on_closed, .arg = bench };
	struct websocket_options options = websocket_defaults;
	options.max_output_bytes = 64 << 20;
	if (websocket_server_new(bev, true, &options, &callbacks, &bench->websocket) != STATUS_OK)
		die("no websocket");
	greet(bench);
}

static void on_gone(struct bufferevent *bev, short what, void *arg)
{
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		bufferevent_free(bev);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *arg)
{
	struct bench *bench = arg;
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	struct bufferevent *bev = bufferevent_openssl_socket_new(bench->base, fd, SSL_new(bench->tls), BUFFEREVENT_SSL_ACCEPTING,
	                                                         BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	bufferevent_setcb(bev, on_upgrade, NULL, on_gone, bench);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void start_run(struct bench *bench, const char *line)
{
	char op[16];
	if (sscanf(line, "%15s %u %u %u %u", op, &bench->total, &bench->in_flight, &bench->first_user, &bench->users) != 5 || !operation_from_name(op, &bench->op) ||
	    bench->in_flight < 1 || bench->in_flight > MOST_IN_FLIGHT || !bench->greeted || bench->total < bench->in_flight || !bench->users)
		die("a line is OP TOTAL IN-FLIGHT FIRST-USER USERS, once the agent is there");
	bench->sent = bench->done = bench->applied = 0;
	bench->first_other[0] = 0;
	bench->latencies = calloc(bench->total, sizeof *bench->latencies);
	if (!bench->latencies)
		die("out of memory");
	bench->began_us = clock_monotonic_us();
	for (unsigned i = 0; i < bench->in_flight; i++)
		send_request(bench, &bench->flights[i]);
}

static void on_line(struct bufferevent *bev, void *arg)
{
	for (char *line; (line = evbuffer_readln(bufferevent_get_input(bev), NULL, EVBUFFER_EOL_LF)); free(line))
		start_run(arg, line);
}

static void on_input_end(struct bufferevent *bev, short what, void *arg)
{
	struct bench *bench = arg;
	event_base_loopexit(bench->base, NULL);
}

static struct jose_key *load_public(const char *path, enum jose_use use)
{
	struct jose_key *key = NULL;
	json_t *jwk = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
	if (!jwk || jose_key_from_jwk(jwk, use, false, &key) != STATUS_OK)
		die(path);
	json_decref(jwk);
	return key;
}

int main(int argc, char **argv)
{
	static struct bench bench;
	if (argc != 11)
		die("usage: bench-service PORT CERTIFICATE KEY ISSUER AGENT-ID UPN-SUFFIX KEY-SET SIGNING-JWK AGENT-SIGNING-JWK AGENT-DECRYPTION-JWK");
	AUTO_FREE char *why = NULL;
	secret_heap_init();
	if (tls_server_context(argv[2], argv[3], &bench.tls, &why) != STATUS_OK)
		die(why);
	bench.issuer = argv[4];
	bench.agent_id = argv[5];
	bench.suffix = argv[6];
	struct secret key_set = SECRET_EMPTY;
	if (secret_read_file(argv[7], &key_set) != STATUS_OK || jose_key_load(argv[8], JOSE_SIGN, &bench.signing) != STATUS_OK)
		die("cannot read key set or signing key");
	bench.key_set = strndup((char *)key_set.data, key_set.size);
	bench.agent_keys = jose_keys_new();
	if (jose_keys_add(bench.agent_keys, load_public(argv[9], JOSE_SIGN)) != STATUS_OK)
		die("agent key");
	bench.recipient = load_public(argv[10], JOSE_DECRYPT);

	struct loop *loop;
	struct loop_callbacks callbacks = { 0 };
	if (loop_new(&callbacks, 1000, &loop) != STATUS_OK)
		die("no loop");
	bench.base = loop_base(loop);
	bench.acknowledging = evtimer_new(bench.base, send_acks, &bench);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct evconnlistener *listener = evconnlistener_new_bind(bench.base, on_accept, &bench, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 16,
	                                                          (struct sockaddr *)&address, sizeof address);
	if (!listener)
		die("cannot listen");
	struct bufferevent *input = bufferevent_socket_new(bench.base, 0, 0);
	evutil_make_socket_nonblocking(0);
	bufferevent_setcb(input, on_line, NULL, on_input_end, &bench);
	bufferevent_enable(input, EV_READ);
	event_base_dispatch(bench.base);
	return 0;
}
