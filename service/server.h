/* server: `reset-service serve`: puts http, hub, operations and the store together and runs them on one loop. */
#ifndef SERVICE_SERVER_H
#define SERVICE_SERVER_H

#include "base/loop.h"
#include "service/operations.h"

#define KNOWN_KEYS 64

/* What an API key may still ask for now. */
struct api_rate { uint8_t hash[32]; double tokens; int64_t refilled_us; };

/* What the handlers (api.c, enroll.c) get. */
struct server {
	const char *config_file;
	struct settings *settings;
	struct keys keys;
	struct loop *loop;
	SSL_CTX *tls;
	struct database *database;
	struct http *http;
	struct hub *hub;
	struct operations *operations;
	uint8_t content_key[32];
	uint8_t known_keys[KNOWN_KEYS][32]; /* hashes of API keys that were good since the store last changed */
	unsigned known_count;
	struct api_rate rates[KNOWN_KEYS];  /* of good keys only; the one that was idle longest gives way */
	int64_t store_version;
	struct event *poll;
	bool polling;
	struct event *forgetting;
	int expiry_warned;                  /* how many of the warnings of the key set's end were given */
	int64_t forget_before_ms;           /* the argument of the job under way; 0: none */
	struct event *stopping;             /* looks whether what is in flight has ended */
	int64_t stop_by_us;
	bool closing;
	struct ticket_hashes tickets;       /* those that were good when the store last changed */
	double enroll_tokens;               /* refused enrolments still allowed now */
	int64_t enroll_refilled_us;
};

/* Runs until SIGTERM; a sysexits code. SIGHUP reads `config_file`, the keys and the certificate again; each that is bad stays as it was. */
int server_run(const char *config_file, struct settings *settings, int log_format);

extern const struct http_route api_routes[];
/* http_options.authorize */
void api_authorize(struct exchange *exchange, const uint8_t hash[32], void *arg);
/* The handler of POST /v1/agents. */
void enroll_handle(struct exchange *exchange, void *arg);

#endif
