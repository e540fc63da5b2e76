/* tls: OpenSSL contexts and handshakes as this product wants them everywhere: TLS 1.2 at the least, the peer always verified,
 * only subjectAltName counts (no CN, no partial wildcards), SNI sent, no compression, no renegotiation, an optional CRL file. There is no insecure switch.
 * A connection ends after 1,024 handshake records and messages from the peer, and an SSL_read that met one says SSL_ERROR_WANT_READ although there may be more to read on the socket. */
#ifndef BASE_TLS_H
#define BASE_TLS_H

#include <openssl/ssl.h>

#include "base/status.h"

/* Paths may be NULL: ca_file then means the system's store; crl_file none. On failure `ret_why` (if not NULL) gets a malloc'ed
 * sentence that names file and reason. */
enum status tls_client_context(const char *ca_file, const char *crl_file, SSL_CTX **ret_context, char **ret_why) MUST_USE;
/* With certificate chain and key in PEM. */
enum status tls_server_context(const char *certificate_file, const char *key_file, SSL_CTX **ret_context, char **ret_why) MUST_USE;

/* What a client shows to servers that ask for a certificate: chain and key in PEM. Replaces what it showed before, or leaves that and says why not. */
enum status tls_client_identity(SSL_CTX *context, const char *certificate_file, const char *key_file, char **ret_why) MUST_USE;

/* The channel binding tls-server-end-point of a server's certificate (RFC 5929 section 4.1): its hash, by the hash of its own signature, or by SHA-256 where that is MD5 or SHA-1.
 * The hash's size; 0 where the signature names no hash (Ed25519): such a certificate has no such binding. */
enum { TLS_BINDING_MAX = 64 };
size_t tls_server_end_point(X509 *certificate, uint8_t ret_hash[TLS_BINDING_MAX]);

/* An SSL that will verify `host` (a DNS name, or an address in text). */
enum status tls_client_new(SSL_CTX *context, const char *host, SSL **ret_ssl) MUST_USE;

/* Why the handshake of `ssl` failed: tls.untrusted, tls.name, tls.expired, tls.revoked, else tls.failed. `why` (capacity bytes) gets a sentence for
 * the log, made from the verify result and `error` (as given by bufferevent_get_openssl_error or ERR_get_error; 0 if none). */
enum status tls_failure(SSL *ssl, unsigned long error, char *why, size_t capacity);

/* What OpenSSL says of an error, or the system where it was the system's. Never NULL. */
const char *tls_reason(unsigned long error);

/* Facts about an established connection, for logs and for `writebackctl check`. */
struct tls_peer {
	char version[16];          /* "TLSv1.3" */
	char cipher[64];
	char subject_alt_name[256];
	char issuer[256];
	char sha256[65];           /* of the leaf certificate, hex */
	int64_t not_after;         /* seconds since 1970 */
};
void tls_describe(SSL *ssl, struct tls_peer *ret_peer);

#endif
