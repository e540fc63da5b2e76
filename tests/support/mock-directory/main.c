/* mock-directory: a domain controller for tests. It answers LDAP as Active Directory on Windows does, from a forest described in a file. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certificate.h"
#include "connection.h"
#include "control.h"
#include "replication.h"

struct options {
	const char *users, *listen, *plain_listen, *host, *tls_dir, *control, *state;
	unsigned seed, max_idle; /* max_idle 0: as the forest's file says */
	bool no_policy_hints, wrong_name, require_signing;
};

static int usage(void)
{
	fprintf(stderr, "usage: mock-directory --users FILE [--listen 127.0.0.1:0] [--plain-listen ADDR:PORT] [--host NAME] [--tls-dir DIR]\n"
		"                      [--control PATH] [--state FILE] [--seed N] [--no-policy-hints] [--wrong-name] [--require-signing] [--max-idle SECONDS] [--threads no]\n");
	return 2;
}

static bool read_options(int argc, char **argv, struct options *ret)
{
	static const struct option table[] = { { "users", required_argument, NULL, 'u' }, { "listen", required_argument, NULL, 'l' }, { "plain-listen", required_argument, NULL, 'p' },
		{ "host", required_argument, NULL, 'h' }, { "tls-dir", required_argument, NULL, 't' }, { "control", required_argument, NULL, 'c' }, { "state", required_argument, NULL, 'S' },
		{ "seed", required_argument, NULL, 's' }, { "no-policy-hints", no_argument, NULL, 'n' }, { "wrong-name", no_argument, NULL, 'w' },
		{ "require-signing", no_argument, NULL, 'r' }, { "max-idle", required_argument, NULL, 'i' }, { "threads", required_argument, NULL, 'T' }, { 0 } };
	for (int option; (option = getopt_long(argc, argv, "", table, NULL)) != -1;) {
		switch (option) {
		case 'u': ret->users = optarg; break;
		case 'l': ret->listen = optarg; break;
		case 'p': ret->plain_listen = optarg; break;
		case 'h': ret->host = optarg; break;
		case 't': ret->tls_dir = optarg; break;
		case 'c': ret->control = optarg; break;
		case 'S': ret->state = optarg; break;
		case 's': ret->seed = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'i': ret->max_idle = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'n': ret->no_policy_hints = true; break;
		case 'w': ret->wrong_name = true; break;
		case 'r': ret->require_signing = true; break;
		case 'T': if (strcmp(optarg, "no")) return false; break;
		default: return false;
		}
	}
	return ret->users && optind == argc;
}

static void on_accept_tls(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *arg)
{
	connection_accept(arg, fd, true);
}

static void on_accept_plain(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *arg)
{
	connection_accept(arg, fd, false);
}

/* libevent's own reader of addresses refuses port 0. */
static bool read_address(const char *where, struct sockaddr_storage *ret_address, int *ret_size)
{
	const char *colon = strrchr(where, ':');
	char *end;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 65536;
	if (port > 65535 || end == colon + 1 || *end)
		return false;
	char host[64];
	snprintf(host, sizeof host, "%.*s", (int)(colon - where), where);
	memset(ret_address, 0, sizeof *ret_address);
	if (evutil_parse_sockaddr_port(host, (struct sockaddr *)ret_address, ret_size))
		return false;
	if (ret_address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)ret_address)->sin6_port = htons((uint16_t)port);
	else
		((struct sockaddr_in *)ret_address)->sin_port = htons((uint16_t)port);
	return true;
}

static struct evconnlistener *listen_on(struct server *server, const char *where, bool encrypted)
{
	struct sockaddr_storage address;
	int size = sizeof address;
	struct evconnlistener *listener = NULL;
	if (read_address(where, &address, &size))
		listener = evconnlistener_new_bind(server->base, encrypted ? on_accept_tls : on_accept_plain, server, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_EXEC, 512,
			(struct sockaddr *)&address, size);
	if (!listener) {
		fprintf(stderr, "mock-directory: cannot listen on %s: %s\n", where, strerror(errno));
		return NULL;
	}
	socklen_t length = sizeof address;
	char host[INET6_ADDRSTRLEN];
	getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &length);
	bool six = address.ss_family == AF_INET6;
	const void *octets = six ? (const void *)&((struct sockaddr_in6 *)&address)->sin6_addr : (const void *)&((struct sockaddr_in *)&address)->sin_addr;
	inet_ntop(address.ss_family, octets, host, sizeof host);
	unsigned port = ntohs(six ? ((struct sockaddr_in6 *)&address)->sin6_port : ((struct sockaddr_in *)&address)->sin_port);
	printf(six ? "listening %s://[%s]:%u\n" : "listening %s://%s:%u\n", encrypted ? "ldaps" : "ldap", host, port);
	return listener;
}

static void on_term(evutil_socket_t signal, short what, void *arg)
{
	event_base_loopbreak(arg);
}

static bool run(struct server *server, const struct options *options)
{
	struct evconnlistener *secure = NULL, *plain = NULL;
	struct control_socket *control = NULL;
	char folder[] = "/tmp/mock-directory.XXXXXX";
	const char *tls_dir = options->tls_dir ? options->tls_dir : mkdtemp(folder);
	server->tls = certificate_context(tls_dir, options->host, options->wrong_name);
	bool good = server->tls && (secure = listen_on(server, options->listen, true));
	if (good && options->plain_listen)
		good = (plain = listen_on(server, options->plain_listen, false));
	if (good && options->control)
		good = (control = control_listen(server, options->control));
	if (good) {
		struct event *term = evsignal_new(server->base, SIGTERM, on_term, server->base), *interrupt = evsignal_new(server->base, SIGINT, on_term, server->base);
		evsignal_add(term, NULL);
		evsignal_add(interrupt, NULL);
		printf("ca %s/ca.pem\nready\n", tls_dir);
		fflush(stdout);
		event_base_dispatch(server->base);
		event_free(term);
		event_free(interrupt);
	}
	connection_free_all(server);
	control_free(control);
	if (secure)
		evconnlistener_free(secure);
	if (plain)
		evconnlistener_free(plain);
	/* libevent ends bufferevents in the loop's next turns: the filter's first, then what is below it. */
	for (unsigned turn = 0; turn < 3; turn++)
		event_base_loop(server->base, EVLOOP_NONBLOCK);
	SSL_CTX_free(server->tls);
	return good;
}

int main(int argc, char **argv)
{
	struct options options = { .listen = "127.0.0.1:0", .host = "dc1.corp.example.test" };
	struct server server = { 0 };
	char *why = NULL;
	if (!read_options(argc, argv, &options))
		return usage();
	/* Upper and lower case of all letters (name.h); the C library carries this locale itself. */
	setlocale(LC_CTYPE, "C.UTF-8");
	signal(SIGPIPE, SIG_IGN);
	server.forest = forest_read(options.users, options.host, options.seed, &why);
	if (!server.forest) {
		fprintf(stderr, "mock-directory: %s: %s\n", options.users, why);
		free(why);
		return 2;
	}
	if (options.max_idle)
		server.forest->idle_seconds = options.max_idle;
	if (options.state && !(server.state = state_open(server.forest, options.state))) {
		forest_free(server.forest);
		return 2;
	}
	server.policy_hints = !options.no_policy_hints;
	server.require_signing = options.require_signing;
	server.base = event_base_new();
	bool good = run(&server, &options);
	event_base_free(server.base);
	faults_clear(&server.faults);
	arena_free(&server.arena);
	state_close(server.state);
	forest_free(server.forest);
	libevent_global_shutdown();
	return good ? 0 : 1;
}
