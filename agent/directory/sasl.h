/* sasl: one SASL negotiation with GSSAPI or GSS-SPNEGO (RFC 4752, RFC 4178), cyrus-sasl driven by hand: token in, token out, no I/O to the server. Inside TLS no further layer is
 * wanted (MS-ADTS 5.1.2.2 does not permit one): the most is 0, and TLS counts as 256. One thread at a time; a call may wait for a KDC. */
#ifndef AGENT_DIRECTORY_SASL_H
#define AGENT_DIRECTORY_SASL_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/status.h"

/* Once, while the program has one thread: plugins are loaded from where they were installed, whatever SASL_PATH and SASL_CONF_PATH say. */
enum status sasl_prepare(void) MUST_USE;

struct sasl_exchange;
/* `binding`: the server certificate's hash (tls_server_end_point); size 0: it has none. `credential`: a gss_cred_id_t that outlives the exchange. `why` gets a sentence on failure. */
enum status sasl_exchange_new(const char *mechanism, const char *host, struct bytes binding, const void *credential, struct sasl_exchange **ret_exchange, char *why, size_t capacity) MUST_USE;
/* The first step has no input. `ret_token` is borrowed until the next step; its data is NULL where there is nothing to send. `ret_complete`: this side has had enough. */
enum status sasl_exchange_step(struct sasl_exchange *exchange, struct bytes input, struct bytes *ret_token, bool *ret_complete, char *why, size_t capacity) MUST_USE;
void sasl_exchange_free(struct sasl_exchange *exchange);

#endif
