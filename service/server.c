#include "service/server.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/log.h"
#include "service/admin.h"

#define POLL_MS 500
#define FORGET_S 60
#define STOP_LOOK_MS 50
#define STOP_IN_FLIGHT_S 15 /* what agents still owe at a stop */
#define STOP_CLOSE_S 2      /* for the close frames */

/* Other processes: the command line writes the same store ---------------------------------------------------------------------------- */

struct poll_job {
	struct server *server;
	int64_t version;
	bool changed;
	struct agent_rows agents;
	struct ticket_hashes tickets;
};

static enum status look(sqlite3 *db, void *arg)
{
	struct poll_job *job = arg;
	int64_t before = job->version;
	enum status status = store_version(db, &job->version);
	job->changed = status == STATUS_OK && job->version != before;
	if (job->changed)
		status = store_agents(db, &job->agents);
	return job->changed && status == STATUS_OK ? store_tickets(db, &job->tickets) : status;
}

static void on_looked(enum status status, void *arg)
{
	struct poll_job *job = arg;
	struct server *server = job->server;
	server->polling = false;
	if (status != STATUS_OK) {
		log_event(LOG_ERR, "store.failed", LOG_FIELDS({ LOG_CODE, status_code(status) }), "the store cannot be read");
	} else if (job->changed) {
		server->store_version = job->version;
		server->known_count = 0;
		hub_update(server->hub, &job->agents);
		free(server->tickets.items);
		server->tickets = job->tickets;
		job->tickets = (struct ticket_hashes){ 0 };
	}
	free(job->tickets.items);
	agent_rows_clear(&job->agents);
	free(job);
}

static void on_poll(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;
	struct poll_job *job = server->polling ? NULL : calloc(1, sizeof *job);
	if (job == NULL)
		return;
	job->server = server;
	job->version = server->store_version;
	job->tickets.now = clock_now_ms() / 1000;
	server->polling = database_submit(server->database, look, on_looked, job) == STATUS_OK;
	if (!server->polling)
		free(job);
}

static void on_forgotten(enum status status, void *arg)
{
	struct server *server = arg;
	server->forget_before_ms = 0;
	if (status != STATUS_OK)
		log_event(LOG_ERR, "store.failed", LOG_FIELDS({ LOG_CODE, status_code(status) }), "old operations could not be removed");
}

static enum status forget(sqlite3 *db, void *arg)
{
	struct server *server = arg;
	return store_operations_forget(db, &server->forget_before_ms);
}

/* Agents refuse a key set past its end: nothing goes any more until there is another. */
static void warn_of_expiry(struct server *server)
{
	static const int days[] = { 30, 14, 7, 1, 0 };
	int64_t left_s = server->keys.expires - clock_now_ms() / 1000;
	int due = 0;
	while (due < 5 && left_s < (int64_t)days[due] * 86400)
		due++;
	if (due > server->expiry_warned)
		log_event(due == 5 ? LOG_CRIT : LOG_WARNING, "keys.expiry", NULL, due == 5 ? "the key set has expired: agents accept nothing until 'reset-service rotate-keys' and a reload"
			: "the key set expires in %lld days: 'reset-service rotate-keys' with the root key, then a reload", (long long)(left_s / 86400));
	server->expiry_warned = due;
}

static void on_forget(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;
	warn_of_expiry(server);
	if (server->forget_before_ms != 0)
		return;
	server->forget_before_ms = clock_now_ms() - server->settings->retention_ms;
	if (database_submit(server->database, forget, on_forgotten, server) != STATUS_OK)
		server->forget_before_ms = 0;
}

/* Stop and reload -------------------------------------------------------------------------------------------------------------------- */

static void on_stopping(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;
	bool late = clock_monotonic_us() >= server->stop_by_us;
	if (!server->closing) {
		if (!late && operations_on_wire(server->operations) + database_pending(server->database) > 0)
			return;
		server->closing = true;
		server->stop_by_us = clock_monotonic_us() + STOP_CLOSE_S * INT64_C(1000000);
		operations_answer_all(server->operations);
		hub_close_all(server->hub, 1001, "the service stops");
	} else if (late || (hub_sessions(server->hub) == 0 && database_pending(server->database) == 0)) {
		loop_end(server->loop);
	}
}

static void on_stop(void *arg)
{
	struct server *server = arg;
	log_event(LOG_NOTICE, "service.stopping", NULL, "stopping: %u requests are with agents", operations_on_wire(server->operations));
	loop_notify_stopping(server->loop);
	http_stop_listening(server->http);
	hub_drain(server->hub, "the service stops");
	server->stop_by_us = clock_monotonic_us() + STOP_IN_FLIGHT_S * INT64_C(1000000);
	const struct timeval interval = { 0, STOP_LOOK_MS * 1000 };
	event_add(server->stopping, &interval);
}

static void reload_settings(struct server *server)
{
	struct settings fresh;
	struct config_errors errors = { 0 };
	char text[CONFIG_ERROR_SIZE];
	if (settings_read(server->config_file, &fresh, &errors, NULL) == STATUS_OK) {
		AUTO_FREE char *fixed = config_not_reloadable(settings_keys, server->settings, &fresh);
		for (char *at = fixed; at != NULL && *at != '\0'; at++)
			*at = *at == '\n' ? ' ' : *at;
		if (fixed != NULL)
			log_event(LOG_WARNING, "config.restart", NULL, "these keys have changed and need a restart: %s", fixed);
		settings_reload(server->settings, &fresh);
		log_set_level(settings_log_level(server->settings));
		log_event(LOG_NOTICE, "config.loaded", NULL, "%s is in force", server->config_file);
	} else {
		for (size_t i = 0; i < errors.count; i++) {
			config_error_format(&errors.items[i], text, sizeof text);
			log_event(LOG_ERR, "config.error", NULL, "%s", text);
		}
		log_event(LOG_ERR, "config.refused", NULL, "the old configuration stays in force");
	}
	config_errors_clear(&errors);
}

static void reload_keys(struct server *server)
{
	struct keys fresh;
	AUTO_FREE char *why = NULL;
	if (keys_load(server->settings->state_directory, server->settings->issuer, clock_now_ms() / 1000, &fresh, &why) != STATUS_OK) {
		log_event(LOG_ERR, "keys.refused", NULL, "the keys stay as they were: %s", why);
	} else {
		keys_clear(&server->keys);
		server->keys = fresh;
		server->expiry_warned = 0;
		warn_of_expiry(server);
		hub_set_keys(server->hub, &server->keys);
		operations_set_keys(server->operations, &server->keys);
		log_event(LOG_NOTICE, "keys.loaded", LOG_FIELDS({ "signing_key", jose_key_id(server->keys.signing) }), "key set version %lld",
			(long long)server->keys.version);
	}
}

static void reload_tls(struct server *server)
{
	SSL_CTX *tls = NULL;
	AUTO_FREE char *why = NULL;
	const char *path;
	if (settings_tls(server->settings, &tls, &path, &why) != STATUS_OK) {
		log_event(LOG_ERR, "tls.refused", NULL, "the certificate stays as it was: %s: %s", path, why != NULL ? why : "out of memory");
	} else {
		http_set_tls(server->http, tls);
		SSL_CTX_free(server->tls);
		server->tls = tls;
	}
}

static void on_reload(void *arg)
{
	struct server *server = arg;
	loop_notify_reloading(server->loop);
	reload_settings(server);
	reload_keys(server);
	reload_tls(server);
	loop_notify_ready(server->loop, "Reloaded");
}

/* Start ------------------------------------------------------------------------------------------------------------------------------ */

static int fail(const char *what, enum status status, const char *why, int code)
{
	log_event(LOG_CRIT, "service.failed", LOG_FIELDS({ LOG_CODE, status_code(status) }), "%s: %s", what, why != NULL ? why : status_admin_text(status));
	return code;
}

/* A descriptor for every connection, and some for the store, the log and the loop. */
#define OTHER_FILES 64

static void raise_file_limit(const struct settings *settings)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)settings->max_connections + OTHER_FILES)
		log_event(LOG_WARNING, "service.few_files", NULL, "limits.connections is %lld, but only %llu files may be open (RLIMIT_NOFILE, LimitNOFILE=)",
			(long long)settings->max_connections, (unsigned long long)limit.rlim_cur);
}

static int open_state(struct server *server)
{
	AUTO_FREE char *why = NULL;
	const struct settings *settings = server->settings;
	enum status status = keys_load(settings->state_directory, settings->issuer, clock_now_ms() / 1000, &server->keys, &why);
	if (status != STATUS_OK)
		return fail("keys (made by 'reset-service init')", status, why, status == STATUS_LOCAL_PERMISSION ? EX_NOPERM : EX_CONFIG);
	const char *path;
	status = settings_tls(settings, &server->tls, &path, &why);
	if (status != STATUS_OK)
		return fail(path, status, why, EX_CONFIG);
	status = store_open(loop_base(server->loop), settings->state_directory, &server->database, &why);
	if (status != STATUS_OK)
		return fail("store", status, why, admin_exit_code(status));
	return EX_OK;
}

static int restore(struct server *server)
{
	struct agent_rows agents = { 0 };
	struct utsname host = { 0 };
	(void)uname(&host);
	struct store_start start = { host.nodename, clock_booted_ms() };
	enum status status = database_run(server->database, store_hash_key, server->content_key);
	if (status == STATUS_OK)
		status = database_run(server->database, store_agents_gone, &start);
	if (status == STATUS_OK)
		status = database_run(server->database, store_version, &server->store_version);
	if (status == STATUS_OK)
		status = database_run(server->database, store_agents, &agents);
	server->tickets.now = clock_now_ms() / 1000;
	if (status == STATUS_OK)
		status = database_run(server->database, store_tickets, &server->tickets);
	if (status == STATUS_OK) {
		hub_update(server->hub, &agents); /* one agent with a broken row must not keep the others away */
		status = operations_restore(server->operations);
	}
	agent_rows_clear(&agents);
	return status == STATUS_OK ? EX_OK : fail("store", status, NULL, admin_exit_code(status));
}

static int build(struct server *server)
{
	struct event_base *base = loop_base(server->loop);
	const struct settings *settings = server->settings;
	const struct http_options options = {
		.base = base, .tls = server->tls, .max_connections = (unsigned)settings->max_connections, .max_body = (size_t)settings->max_body,
		.request_ms = settings->request_deadline_ms, .routes = api_routes, .authorize = api_authorize, .arg = server,
	};
	AUTO_FREE char *why = NULL;
	const struct timeval interval = { 0, POLL_MS * 1000 };
	server->poll = event_new(base, -1, EV_PERSIST, on_poll, server);
	const struct timeval forget_interval = { FORGET_S, 0 };
	server->forgetting = event_new(base, -1, EV_PERSIST, on_forget, server);
	server->stopping = event_new(base, -1, EV_PERSIST, on_stopping, server);
	if (server->poll == NULL || server->stopping == NULL || server->forgetting == NULL || event_add(server->forgetting,
		&forget_interval) != 0 || event_add(server->poll, &interval) != 0 ||
	    hub_new(base, settings, &server->keys, server->database, &server->hub) != STATUS_OK ||
	    operations_new(base, settings, &server->keys, server->database, server->hub, &server->operations) != STATUS_OK ||
	    http_new(&options, &server->http, &why) != STATUS_OK)
		return fail("start", STATUS_AGENT_INTERNAL, why, EX_OSERR);
	const struct hub_callbacks callbacks = operations_hub_callbacks(server->operations);
	hub_set_callbacks(server->hub, &callbacks);
	return restore(server);
}

static int start_listening(struct server *server)
{
	AUTO_FREE char *why = NULL;
	unsigned port = 0;
	enum status status = http_listen(server->http, server->settings->listen_host, server->settings->listen_port, &port, &why);
	if (status != STATUS_OK)
		return fail("listen", status, why, status == STATUS_LOCAL_CONFIG ? EX_CONFIG : EX_UNAVAILABLE);
	const char *host = server->settings->listen_host;
	bool v6 = strchr(host, ':') != NULL;
	char where[300];
	snprintf(where, sizeof where, "https://%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", port);
	log_event(LOG_NOTICE, "service.listening", LOG_FIELDS({ "address", where }, { "root_key", jose_key_id(server->keys.root) }),
		"listening %s as %s", where, server->settings->issuer);
	if (server->settings->listen_port == 0) {
		printf("listening %s\n", where);
		fflush(stdout);
	}
	warn_of_expiry(server);
	loop_notify_ready(server->loop, where);
	return EX_OK;
}

/* `done`s that run while the store closes may still answer exchanges, so http goes last of those three. */
static void close_all(struct server *server)
{
	if (server->poll != NULL)
		event_free(server->poll);
	if (server->forgetting != NULL)
		event_free(server->forgetting);
	if (server->stopping != NULL)
		event_free(server->stopping);
	if (server->database != NULL)
		database_close(server->database);
	if (server->operations != NULL)
		operations_answer_all(server->operations);
	operations_free(server->operations);
	hub_free(server->hub);
	http_free(server->http);
	SSL_CTX_free(server->tls);
	keys_clear(&server->keys);
	free(server->tickets.items);
}

int server_run(const char *config_file, struct settings *settings, int log_format)
{
	struct server server = { .config_file = config_file, .settings = settings, .enroll_tokens = 1e6 };
	server.enroll_refilled_us = clock_monotonic_us();
	const struct loop_callbacks callbacks = { on_stop, on_reload, &server };
	log_start("reset-service", (enum log_format)log_format, settings_log_level(settings));
	raise_file_limit(settings);
	int code = loop_new(&callbacks, (unsigned)settings->loop_probe_ms, &server.loop) == STATUS_OK ? EX_OK : EX_OSERR;
	if (code == EX_OK)
		code = open_state(&server);
	if (code == EX_OK)
		code = build(&server);
	if (code == EX_OK)
		code = start_listening(&server);
	if (code == EX_OK) {
		loop_run(server.loop);
		char gap[24];
		snprintf(gap, sizeof gap, "%lld", (long long)loop_longest_gap_us(server.loop));
		log_event(LOG_NOTICE, "service.stopped", LOG_FIELDS({ "longest_gap_us", gap }), "stopped");
	}
	close_all(&server);
	if (server.loop != NULL)
		loop_free(server.loop);
	log_stop();
	return code;
}
