#include "agent/directory/sasl.h"

#include <sasl/sasl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tls.h"

#define BINDING_PREFIX "tls-server-end-point:"
enum { TLS_STRENGTH = 256 };

struct sasl_exchange {
	sasl_conn_t *conn;
	char mechanism[16];
	bool begun;
	sasl_channel_binding_t channel;        /* cyrus-sasl borrows it */
	uint8_t binding[sizeof BINDING_PREFIX + TLS_BINDING_MAX];
};

/* The keytab says who we are; an authorization identity is not asked for. */
static int answer_empty(void *context, int id, const char **ret_result, unsigned *ret_size)
{
	*ret_result = "";
	if (ret_size != NULL) {
		*ret_size = 0;
	}
	return SASL_OK;
}

/* Else it writes to syslog by itself; what matters comes from sasl_errdetail. */
static int drop_log(void *context, int level, const char *message)
{
	return SASL_OK;
}

typedef int (*callback_proc)(void);
static const sasl_callback_t CALLBACKS[] = {
	{ SASL_CB_USER, (callback_proc)(void (*)(void))answer_empty, NULL },
	{ SASL_CB_AUTHNAME, (callback_proc)(void (*)(void))answer_empty, NULL },
	{ SASL_CB_LOG, (callback_proc)(void (*)(void))drop_log, NULL },
	{ SASL_CB_LIST_END, NULL, NULL },
};

enum status sasl_prepare(void)
{
	unsetenv("SASL_PATH");
	unsetenv("SASL_CONF_PATH");
	return sasl_client_init(CALLBACKS) == SASL_OK ? STATUS_OK : STATUS_LOCAL_SYSTEM;
}

static bool set_properties(struct sasl_exchange *exchange, const void *credential)
{
	static const sasl_security_properties_t NO_LAYER = { .security_flags = SASL_SEC_NOANONYMOUS | SASL_SEC_NOPLAINTEXT };
	static const sasl_ssf_t EXTERNAL = TLS_STRENGTH;
	return sasl_setprop(exchange->conn, SASL_SEC_PROPS, &NO_LAYER) == SASL_OK && sasl_setprop(exchange->conn, SASL_SSF_EXTERNAL, &EXTERNAL) == SASL_OK &&
	       sasl_setprop(exchange->conn, SASL_GSS_CREDS, credential) == SASL_OK &&
	       (exchange->channel.len == 0 || sasl_setprop(exchange->conn, SASL_CHANNEL_BINDING, &exchange->channel) == SASL_OK);
}

enum status sasl_exchange_new(const char *mechanism, const char *host, struct bytes binding, const void *credential, struct sasl_exchange **ret_exchange, char *why, size_t capacity)
{
	struct sasl_exchange *exchange = calloc(1, sizeof *exchange);
	size_t prefix = strlen(BINDING_PREFIX);
	if (exchange == NULL || binding.size > TLS_BINDING_MAX) {
		free(exchange);
		return STATUS_AGENT_INTERNAL;
	}
	snprintf(exchange->mechanism, sizeof exchange->mechanism, "%s", mechanism);
	if (binding.size > 0) {
		memcpy(exchange->binding, BINDING_PREFIX, prefix);
		memcpy(exchange->binding + prefix, binding.data, binding.size);
		exchange->channel = (sasl_channel_binding_t){ .name = "ldap", .len = prefix + binding.size, .data = exchange->binding };
	}
	if (sasl_client_new("ldap", host, NULL, NULL, CALLBACKS, 0, &exchange->conn) != SASL_OK || !set_properties(exchange, credential)) {
		snprintf(why, capacity, "SASL could not be set up");
		sasl_exchange_free(exchange);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_exchange = exchange;
	return STATUS_OK;
}

enum status sasl_exchange_step(struct sasl_exchange *exchange, struct bytes input, struct bytes *ret_token, bool *ret_complete, char *why, size_t capacity)
{
	const char *output = NULL, *chosen = NULL;
	unsigned size = 0;
	int result = exchange->begun ? sasl_client_step(exchange->conn, (const char *)input.data, (unsigned)input.size, NULL, &output, &size)
	                             : sasl_client_start(exchange->conn, exchange->mechanism, NULL, &output, &size, &chosen);
	exchange->begun = true;
	*ret_token = bytes_of(output, output != NULL ? size : 0);
	*ret_complete = result == SASL_OK;
	if (result == SASL_OK || result == SASL_CONTINUE) {
		return STATUS_OK;
	}
	if (result == SASL_NOMECH) {
		snprintf(why, capacity, "%s is not available here: install libsasl2-modules-gssapi-mit", exchange->mechanism);
		return STATUS_LOCAL_SYSTEM;
	}
	snprintf(why, capacity, "%s", sasl_errdetail(exchange->conn));
	return result == SASL_NOMEM ? STATUS_AGENT_INTERNAL : STATUS_DIRECTORY_PROTOCOL;
}

void sasl_exchange_free(struct sasl_exchange *exchange)
{
	if (exchange != NULL) {
		sasl_dispose(&exchange->conn);
		free(exchange);
	}
}
