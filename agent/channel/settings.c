#include "agent/channel/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/secret.h"
#include "base/tls.h"

#define ROW(member) .offset = offsetof(struct settings, member)
#define LEVELS "debug|info|notice|warning|error|critical"

const struct config_key settings_table[] = {
	{ "agent_socket", CONFIG_PATH, ROW(agent_socket), .initial = "/run/writebackd/channel.sock", .reloadable = true, .max = sizeof((struct sockaddr_un *)0)->sun_path - 1,
	  .help = "the socket on which writebackd listens" },
	{ "endpoints", CONFIG_STRINGS, ROW(endpoint_urls), .required = true, .reloadable = true, .min = 1, .max = PACKET_ENDPOINTS,
	  .help = "wss:// URLs of the reset service; a WebSocket is held to each" },
	{ "proxy.address", CONFIG_STRING, ROW(proxy_address), .reloadable = true, .min = 1, .max = 262, .help = "host:port of an HTTP proxy to go through (CONNECT)" },
	{ "proxy.username", CONFIG_STRING, ROW(proxy_username), .reloadable = true, .min = 1, .max = 256, .help = "the user name for the proxy (Basic)" },
	{ "proxy.password_file", CONFIG_PATH, ROW(proxy_password_file), .reloadable = true, .help = "a file that holds the proxy user's password, read at each try" },
	{ "tls.ca_file", CONFIG_PATH, ROW(ca_file), .reloadable = true, .help = "CA certificates (PEM) instead of the system's store" },
	{ "tls.crl_file", CONFIG_PATH, ROW(crl_file), .reloadable = true, .help = "CRLs (PEM) for every CA of the chain" },
	{ "log.level", CONFIG_CHOICE, ROW(log_level), .initial = "info", .reloadable = true, .choices = LEVELS, .help = "lines below this level are not written" },
	{ "log.format", CONFIG_CHOICE, ROW(log_format), .initial = "auto", .choices = "auto|text|json|journal", .help = "how lines are written" },
	{ "ping_interval", CONFIG_DURATION_MS, ROW(ping_interval_ms), .initial = "25s", .reloadable = true, .min = 1000, .max = 300000,
	  .help = "a WebSocket Ping is sent this often" },
	{ "silence_limit", CONFIG_DURATION_MS, ROW(silence_limit_ms), .initial = "60s", .reloadable = true, .min = 2000, .max = 600000,
	  .help = "a service that has sent nothing for so long is dead" },
	{ "diagnostics.loop_probe", CONFIG_DURATION_MS, ROW(loop_probe_ms), .initial = "1s", .min = 10, .max = 10000,
	  .help = "how often the loop looks at its own punctuality" },
	{ 0 },
};

int settings_log_level(const struct settings *settings)
{
	static const int levels[] = { LOG_DEBUG, LOG_INFO, LOG_NOTICE, LOG_WARNING, LOG_ERR, LOG_CRIT };
	return levels[settings->log_level];
}

static void judge_endpoints(struct settings *settings, struct config_errors *errors, const struct config_document *document)
{
	const char *why;
	for (size_t i = 0; i < settings->endpoint_urls.count; i++) {
		const char *url = settings->endpoint_urls.items[i];
		if (url_parse(url, &settings->endpoints[i], &why) != STATUS_OK)
			config_error_add(errors, document, "endpoints", "'%s' is not a URL of the form wss://host[:port]/path: %s", url, why);
		for (size_t j = 0; j < i; j++)
			if (strcmp(url, settings->endpoint_urls.items[j]) == 0)
				config_error_add(errors, document, "endpoints", "'%s' is named twice", url);
	}
}

static void judge_proxy(struct settings *settings, struct config_errors *errors, const struct config_document *document)
{
	const char *why;
	AUTO_SECRET struct secret password = SECRET_EMPTY;
	if (settings->proxy_address && url_parse_address(settings->proxy_address, &settings->proxy, &why) != STATUS_OK)
		config_error_add(errors, document, "proxy.address", "'%s' is not of the form host:port: %s", settings->proxy_address, why);
	if (!settings->proxy_address && (settings->proxy_username || settings->proxy_password_file))
		config_error_add(errors, document, settings->proxy_username ? "proxy.username" : "proxy.password_file", "proxy.username and proxy.password_file have no meaning without proxy.address");
	if (!settings->proxy_username != !settings->proxy_password_file)
		config_error_add(errors, document, settings->proxy_username ? "proxy.username" : "proxy.password_file", "proxy.username and proxy.password_file go together");
	/* RFC 7617 section 2: the first colon ends the user-id. */
	if (settings->proxy_username && strpbrk(settings->proxy_username, ":\r\n"))
		config_error_add(errors, document, "proxy.username", "a user name for Basic credentials must not contain a colon");
	if (!settings->proxy_password_file)
		return;
	switch (secret_read_file(settings->proxy_password_file, &password)) {
	case STATUS_OK:
		break;
	case STATUS_LOCAL_PERMISSION:
		config_error_add(errors, document, "proxy.password_file", "%s must be a regular file that others cannot read and its group cannot write (chmod 0640)", settings->proxy_password_file);
		break;
	case STATUS_LOCAL_INPUT:
		config_error_add(errors, document, "proxy.password_file", "%s must hold one line of at most 4,096 bytes", settings->proxy_password_file);
		break;
	default:
		config_error_add(errors, document, "proxy.password_file", "%s cannot be read: %s", settings->proxy_password_file, strerror(errno));
	}
}

static void judge_rest(struct settings *settings, struct config_errors *errors, const struct config_document *document)
{
	AUTO_FREE char *why = NULL;
	if (settings->silence_limit_ms < 2 * settings->ping_interval_ms)
		config_error_add(errors, document, "silence_limit", "silence_limit must be at least twice ping_interval, or a channel that is merely idle is cut");
	if (tls_client_context(settings->ca_file, settings->crl_file, &settings->tls, &why) != STATUS_OK) {
		settings->tls = NULL;
		config_error_add(errors, document, settings->crl_file ? "tls.crl_file" : "tls.ca_file", "%s", why ? why : "the TLS context cannot be made");
	}
}

struct settings *settings_load(const char *file, struct config_errors *errors, struct config_document **ret_document)
{
	struct settings *settings = calloc(1, sizeof *settings);
	struct config_document *document = NULL;
	if (!settings)
		return NULL;
	if (config_load(file, settings_table, settings, errors, &document) == STATUS_OK) {
		judge_endpoints(settings, errors, document);
		judge_proxy(settings, errors, document);
		judge_rest(settings, errors, document);
	}
	if (ret_document)
		*ret_document = document;
	else
		config_document_free(document);
	if (!errors->count)
		return settings;
	settings_free(settings);
	return NULL;
}

void settings_free(struct settings *settings)
{
	if (!settings)
		return;
	config_clear(settings_table, settings);
	SSL_CTX_free(settings->tls);
	free(settings);
}
