/* settings: channel.yaml. The table of keys, and what cannot be said in it. */
#ifndef AGENT_CHANNEL_SETTINGS_H
#define AGENT_CHANNEL_SETTINGS_H

#include <openssl/ssl.h>

#include "agent/channel/packet.h"
#include "agent/channel/url.h"
#include "config/config.h"

struct settings {
	char *agent_socket;
	struct config_strings endpoint_urls;
	char *proxy_address, *proxy_username, *proxy_password_file;
	char *ca_file, *crl_file;
	int log_level;             /* the choice's number, see settings_log_level */
	int log_format;            /* enum log_format */
	int64_t ping_interval_ms, silence_limit_ms, loop_probe_ms;

	/* Made from the above by settings_load. */
	struct url endpoints[PACKET_ENDPOINTS];
	struct url proxy;          /* port 0: no proxy */
	SSL_CTX *tls;
};

extern const struct config_key settings_table[];

/* Loads and judges: URLs, the proxy's address and credentials, the certificate files, the intervals. A new struct, NULL with findings in `errors` otherwise.
 * `ret_document` may be NULL. */
struct settings *settings_load(const char *file, struct config_errors *errors, struct config_document **ret_document);
void settings_free(struct settings *settings);
/* A syslog level. */
int settings_log_level(const struct settings *settings);

#endif
