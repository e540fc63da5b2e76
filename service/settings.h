/* settings: reset-service.yaml as a struct: the table of keys, and the judgements that go beyond a table. */
#ifndef SERVICE_SETTINGS_H
#define SERVICE_SETTINGS_H

#include <openssl/ssl.h>

#include "config/config.h"

struct settings {
	char *issuer;                 /* https://host[:port], no trailing slash */
	char *listen;                 /* "127.0.0.1:8443", "[::1]:8443" */
	char *certificate_file, *key_file;
	char *state_directory;
	struct config_strings channel_endpoints; /* never empty once loaded */
	int64_t request_lifetime_ms;
	int64_t queue_wait_ms;
	int64_t failover_after_ms;    /* whole seconds */
	int64_t wait_ms;
	int64_t ticket_lifetime_ms;
	int64_t retention_ms;
	int64_t ping_interval_ms;
	int64_t max_agents, max_operations, max_body, max_connections;
	int64_t api_requests;         /* a second by one API key; 0: no limit */
	int log_level, log_format;    /* rows of the choices; see settings_log_level */
	int64_t loop_probe_ms;
	int64_t no_answer_after_ms, request_deadline_ms, greeting_deadline_ms;

	/* Derived. */
	char *listen_host;            /* without brackets */
	unsigned listen_port;
	char *enrollment_endpoint;
};

extern const struct config_key settings_keys[];

/* STATUS_LOCAL_CONFIG where the file is wrong: everything that is wrong has been printed to stderr. `ret_document` may be NULL. */
enum status settings_load(const char *file, struct settings *ret_settings, struct config_document **ret_document) MUST_USE;
void settings_clear(struct settings *settings);
/* The same, but `errors` says what is wrong. */
enum status settings_read(const char *file, struct settings *ret_settings, struct config_errors *errors, struct config_document **ret_document) MUST_USE;
/* The reloadable members of `take_fresh` are in force from now on. Only scalars and the paths of the certificate and its key are: nobody else keeps pointers into those. */
void settings_reload(struct settings *settings, struct settings *take_fresh);
/* A syslog level. */
int settings_log_level(const struct settings *settings);

/* What the start would refuse beyond the file itself, where the start's user looks: the certificate and its key, the address to listen on.
 * STATUS_LOCAL_CONFIG: everything that is wrong has been printed to stderr with its line. */
enum status settings_check_start(const struct settings *settings, const struct config_document *document) MUST_USE;
/* The context of the certificate and its key; a key that others can read is refused. On failure `ret_path` is the configuration's key at fault,
 * `ret_why` a malloc'ed sentence. */
enum status settings_tls(const struct settings *settings, SSL_CTX **ret_context, const char **ret_path, char **ret_why) MUST_USE;

/* Parts of settings_load, for tests. NULL where it is "https://host[:port]" and nothing else; else what is wrong. */
const char *settings_issuer_fault(const char *issuer);
/* NULL where it is "wss://host[:port][/path]". */
const char *settings_endpoint_fault(const char *url);
/* "address:port" or "[address]:port"; the host is malloc'ed. */
bool settings_listen_split(const char *listen, char **ret_host, unsigned *ret_port);

#endif
