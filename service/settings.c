#include "service/settings.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"

#define AT(member) offsetof(struct settings, member)

const struct config_key settings_keys[] = {
	{ "issuer", CONFIG_STRING, AT(issuer), .required = true, .min = 9, .max = 255, .help = "base URL of this service: https://host[:port], no trailing slash" },
	{ "listen", CONFIG_STRING, AT(listen), "127.0.0.1:8443", .min = 3, .max = 255, .help = "address:port to listen on; port 0 takes a free one and prints it" },
	{ "tls.certificate_file", CONFIG_PATH, AT(certificate_file), .required = true, .reloadable = true, .help = "certificate chain, PEM" },
	{ "tls.key_file", CONFIG_PATH, AT(key_file), .required = true, .reloadable = true, .help = "its private key, PEM" },
	{ "state_directory", CONFIG_PATH, AT(state_directory), "/var/lib/reset-service", .help = "keys and database" },
	{ "channel_endpoints", CONFIG_STRINGS, AT(channel_endpoints), .min = 0, .max = 8, .help = "the wss:// URL told to agents, one; default: the issuer's, with /v1/agent" },
	{ "request_lifetime", CONFIG_DURATION_MS, AT(request_lifetime_ms), "30s", .reloadable = true, .min = 1000, .max = 120000, .help = "time from a request's iat to its exp" },
	{ "queue_wait", CONFIG_DURATION_MS, AT(queue_wait_ms), "2s", .reloadable = true, .min = 0, .max = 60000, .help = "how long an operation waits for a place at its agent" },
	{ "failover_after", CONFIG_DURATION_MS, AT(failover_after_ms), "4s", .reloadable = true, .min = 1000, .max = 60000, .help = "another agent is asked so long after the channel of the first has ended" },
	{ "wait", CONFIG_DURATION_MS, AT(wait_ms), "20s", .reloadable = true, .min = 0, .max = 20000, .help = "how long POST /v1/operations waits for the outcome" },
	{ "ticket_lifetime", CONFIG_DURATION_MS, AT(ticket_lifetime_ms), "15min", .reloadable = true, .min = 1000, .max = 86400000, .help = "how long an enrolment ticket is good" },
	{ "retention", CONFIG_DURATION_MS, AT(retention_ms), "90d", .reloadable = true, .min = 86400000, .max = INT64_C(315360000000), .help = "finished operations are forgotten after this" },
	{ "ping_interval", CONFIG_DURATION_MS, AT(ping_interval_ms), "25s", .reloadable = true, .min = 100, .max = 50000, .help = "WebSocket pings" },
	{ "limits.agents", CONFIG_INT, AT(max_agents), "100", .reloadable = true, .min = 1, .max = 10000, .help = "agents connected at once" },
	{ "limits.operations_in_flight", CONFIG_INT, AT(max_operations), "1000", .reloadable = true, .min = 1, .max = 100000, .help = "operations without a final outcome" },
	{ "limits.body", CONFIG_SIZE, AT(max_body), "64KiB", .min = 4096, .max = 1048576, .help = "largest HTTP request body" },
	{ "limits.api_requests", CONFIG_INT, AT(api_requests), "1000", .reloadable = true, .min = 0, .max = 100000, .help = "requests a second by one API key, twice as many at once; 0: no limit" },
	{ "limits.connections", CONFIG_INT, AT(max_connections), "1024", .min = 4, .max = 100000, .help = "TCP connections at once, agents included; more wait in the kernel" },
	{ "log.level", CONFIG_CHOICE, AT(log_level), "info", .reloadable = true, .choices = "debug|info|notice|warning|error|critical", .help = "lines below are dropped" },
	{ "log.format", CONFIG_CHOICE, AT(log_format), "auto", .choices = "auto|text|json|journal", .help = "auto: the journal under systemd, else text" },
	{ "diagnostics.loop_probe", CONFIG_DURATION_MS, AT(loop_probe_ms), "1s", .min = 5, .max = 60000, .help = "how often the event loop measures its own punctuality" },
	{ "diagnostics.no_answer_after", CONFIG_DURATION_MS, AT(no_answer_after_ms), "15min", .reloadable = true, .min = 1000, .max = 86400000, .help = "when an operation without an answer becomes service.no_answer" },
	{ "diagnostics.request_deadline", CONFIG_DURATION_MS, AT(request_deadline_ms), "30s", .min = 1000, .max = 120000, .help = "from accept or the last answer to the end of a request's body" },
	{ "diagnostics.greeting_deadline", CONFIG_DURATION_MS, AT(greeting_deadline_ms), "15s", .reloadable = true, .min = 1000, .max = 60000, .help = "from the upgrade to an agent's hello" },
	{ 0 }
};

static const int levels[] = { LOG_DEBUG, LOG_INFO, LOG_NOTICE, LOG_WARNING, LOG_ERR, LOG_CRIT };

int settings_log_level(const struct settings *settings)
{
	return levels[settings->log_level];
}

#define ADDRESS_CHARACTERS "0123456789abcdefABCDEF:."

static bool is_address(int family, const char *text, size_t length)
{
	char address[INET6_ADDRSTRLEN], binary[sizeof(struct in6_addr)];
	if (length == 0 || length >= sizeof address)
		return false;
	memcpy(address, text, length);
	address[length] = '\0';
	return inet_pton(family, address, binary) == 1;
}

/* "host", "192.0.2.1" or "[2001:db8::1]", and ":port" where there is one; ret_rest is what stands behind. */
static const char *authority_fault(const char *text, const char *host_characters, const char **ret_rest)
{
	bool v6 = *text == '[';
	size_t length = strspn(text + v6, v6 ? ADDRESS_CHARACTERS : host_characters);
	const char *rest = text + v6 + length;
	if (length == 0)
		return "the host is missing";
	if (v6 && (*rest != ']' || !is_address(AF_INET6, text + 1, length)))
		return "what stands in brackets is no IPv6 address";
	rest += v6;
	if (*rest == ':') {
		size_t digits = strspn(++rest, "0123456789");
		if (digits < 1 || digits > 5 || rest[0] == '0' || atoi(rest) > 65535)
			return "the port should be a number from 1 to 65535";
		rest += digits;
	}
	*ret_rest = rest;
	return NULL;
}

const char *settings_issuer_fault(const char *issuer)
{
	static const char scheme[] = "https://";
	const char *rest = "";
	if (strncmp(issuer, scheme, sizeof scheme - 1) != 0)
		return "it should begin with https://";
	/* Compared byte for byte by agents, so there is one way to write it. */
	const char *fault = authority_fault(issuer + sizeof scheme - 1, "abcdefghijklmnopqrstuvwxyz0123456789.-", &rest);
	if (fault != NULL || *rest == '\0')
		return fault;
	if (strcmp(rest, "/") == 0)
		return "leave the slash at its end out";
	return *rest == '/' ? "it has a path: it should end with the host or its port" : "the host should hold lower-case letters, digits, hyphens and dots only";
}

const char *settings_endpoint_fault(const char *url)
{
	static const char scheme[] = "wss://";
	const char *rest = "";
	if (strncmp(url, scheme, sizeof scheme - 1) != 0)
		return "it should begin with wss://";
	const char *fault = authority_fault(url + sizeof scheme - 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", &rest);
	if (fault != NULL)
		return fault;
	if (*rest != '\0' && *rest != '/' && *rest != '?')
		return "the host should hold letters, digits, hyphens and dots only";
	for (const char *c = rest; *c != '\0'; c++)
		if (*c <= ' ' || *c > '~' || *c == '#')
			return "the path should hold visible ASCII characters only, and no #";
	return strlen(rest) > 1024 ? "the path is longer than 1,024 bytes" : NULL;
}

static bool listen_host_valid(const char *host, size_t length, bool v6)
{
	if (v6)
		return is_address(AF_INET6, host, length);
	if (strspn(host, "0123456789.") >= length)
		return is_address(AF_INET, host, length);
	return strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") >= length;
}

bool settings_listen_split(const char *listen, char **ret_host, unsigned *ret_port)
{
	const char *colon = strrchr(listen, ':');
	if (colon == NULL || colon == listen)
		return false;
	size_t digits = strspn(colon + 1, "0123456789");
	if (digits == 0 || digits > 5 || colon[1 + digits] != '\0' || atoi(colon + 1) > 65535)
		return false;
	const char *host = listen;
	size_t length = (size_t)(colon - listen);
	bool v6 = *host == '[';
	if (v6) {
		if (length < 3 || host[length - 1] != ']')
			return false;
		host++;
		length -= 2;
	}
	if (!listen_host_valid(host, length, v6))
		return false;
	*ret_host = strndup(host, length);
	*ret_port = (unsigned)atoi(colon + 1);
	return *ret_host != NULL;
}

static bool derive_endpoints(struct settings *settings)
{
	if (asprintf(&settings->enrollment_endpoint, "%s/v1/agents", settings->issuer) < 0) {
		settings->enrollment_endpoint = NULL;
		return false;
	}
	if (settings->channel_endpoints.count > 0)
		return true;
	char **items = calloc(1, sizeof *items);
	if (items == NULL)
		return false;
	if (asprintf(&items[0], "wss%s/v1/agent", settings->issuer + strlen("https")) < 0) {
		free(items);
		return false;
	}
	settings->channel_endpoints = (struct config_strings){ items, 1 };
	return true;
}

static void judge(struct settings *settings, struct config_errors *errors, const struct config_document *document)
{
	const char *fault = settings_issuer_fault(settings->issuer);
	if (fault != NULL)
		config_error_add(errors, document, "issuer", "'%s' is not of the form https://host[:port]: %s", settings->issuer, fault);
	if (!settings_listen_split(settings->listen, &settings->listen_host, &settings->listen_port))
		config_error_add(errors, document, "listen", "'%s' is not of the form address:port, such as 127.0.0.1:8443 or [::1]:8443; port 0 takes a free one", settings->listen);
	if (settings->channel_endpoints.count > 1)
		config_error_add(errors, document, "channel_endpoints", "only one: an agent keeps a channel to each, and this service has one table of channels, where the second "
			"would supersede the first for ever");
	for (size_t i = 0; i < settings->channel_endpoints.count; i++) {
		fault = settings_endpoint_fault(settings->channel_endpoints.items[i]);
		if (fault != NULL)
			config_error_add(errors, document, "channel_endpoints", "'%s' is not of the form wss://host[:port]/path: %s", settings->channel_endpoints.items[i], fault);
	}
}

enum status settings_read(const char *file, struct settings *ret_settings, struct config_errors *errors, struct config_document **ret_document)
{
	struct config_document *document = NULL;
	memset(ret_settings, 0, sizeof *ret_settings);
	enum status status = config_load(file, settings_keys, ret_settings, errors, &document);
	if (status == STATUS_OK) {
		judge(ret_settings, errors, document);
		if (errors->count > 0)
			status = STATUS_LOCAL_CONFIG;
		else if (!derive_endpoints(ret_settings))
			status = STATUS_LOCAL_SYSTEM;
	}
	if (status == STATUS_OK && ret_document != NULL)
		*ret_document = document;
	else
		config_document_free(document);
	if (status != STATUS_OK)
		settings_clear(ret_settings);
	return status;
}

enum status settings_load(const char *file, struct settings *ret_settings, struct config_document **ret_document)
{
	struct config_errors errors = { 0 };
	enum status status = settings_read(file, ret_settings, &errors, ret_document);
	config_errors_print(&errors, stderr);
	config_errors_clear(&errors);
	return status;
}

void settings_reload(struct settings *settings, struct settings *take_fresh)
{
	for (const struct config_key *key = settings_keys; key->path != NULL; key++) {
		void *member = (char *)settings + key->offset, *fresh = (char *)take_fresh + key->offset;
		if (!key->reloadable)
			continue;
		if (key->kind == CONFIG_STRING || key->kind == CONFIG_PATH) {
			char *former = *(char **)member;
			*(char **)member = *(char **)fresh;
			*(char **)fresh = former;
		} else if (key->kind == CONFIG_CHOICE) {
			*(int *)member = *(const int *)fresh;
		} else {
			*(int64_t *)member = *(const int64_t *)fresh;
		}
	}
	settings_clear(take_fresh);
}

void settings_clear(struct settings *settings)
{
	free(settings->listen_host);
	free(settings->enrollment_endpoint);
	config_clear(settings_keys, settings);
	memset(settings, 0, sizeof *settings);
}
