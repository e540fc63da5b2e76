#include "base/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"

#define HOST_LIMIT 253
/* Generous: a handshake has ten messages, a server sends two or four tickets, and a peer that changes its keys every 2^24 records gets there after 2^33. */
#define HANDSHAKE_MAX 1024
/* Forward secrecy always; TLS 1.3 has nothing else. Domain controllers of 2012 R2 still need CBC with ECDHE. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES:!aNULL:!eNULL:!PSK:!SRP:!AESCCM"

const char *tls_reason(unsigned long error)
{
	const char *reason = ERR_SYSTEM_ERROR(error) ? strerror(ERR_GET_REASON(error)) : ERR_reason_error_string(error);
	return reason == NULL ? "no reason given" : reason;
}

/* The last one, or the system's where a file could not be opened. */
static const char *last_reason(void)
{
	unsigned long first = ERR_peek_error();
	return tls_reason(ERR_SYSTEM_ERROR(first) ? first : ERR_peek_last_error());
}

static bool is_handshake(int type, const uint8_t *data, size_t size)
{
	/* Messages, of which one record may hold many, and records, of which one message may take many: in the clear, as TLS 1.2 has them, and inside TLS 1.3. */
	return type == SSL3_RT_HANDSHAKE || ((type == SSL3_RT_HEADER || type == SSL3_RT_INNER_CONTENT_TYPE) && size > 0 && data[0] == SSL3_RT_HANDSHAKE);
}

/* Key updates, tickets and wishes to renegotiate cost the peer next to nothing, and never show in what a connection's owner counts and waits for. `seen` is the number of them so far,
 * which each SSL begins at NULL. To OpenSSL the connection is then one that the peer has closed: what reads from it is told so, in the midst of a handshake too. */
static void bound_handshakes(int sent, int version, int type, const void *data, size_t size, SSL *ssl, void *seen)
{
	uintptr_t count = (uintptr_t)seen;
	if (sent || !is_handshake(type, data, size))
		return;
	if (count < HANDSHAKE_MAX)
		SSL_set_msg_callback_arg(ssl, (void *)(count + 1));
	else
		SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

static SSL_CTX *new_context(const SSL_METHOD *method)
{
	SSL_CTX *context = SSL_CTX_new(method);
	if (context == NULL)
		return NULL;
	SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	/* Else one SSL_read goes on for as long as handshake records come (KeyUpdate, renegotiation), and nothing else of the loop has a turn. */
	SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_msg_callback(context, bound_handshakes);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 || SSL_CTX_set_cipher_list(context, CIPHERS) != 1) {
		SSL_CTX_free(context);
		return NULL;
	}
	return context;
}

static enum status load_trust(SSL_CTX *context, const char *ca_file, const char *crl_file, char **ret_why)
{
	if (ca_file == NULL && SSL_CTX_set_default_verify_paths(context) != 1)
		return status_because(STATUS_LOCAL_SYSTEM, ret_why, "the system's certificate store cannot be read: %s", last_reason());
	if (ca_file != NULL && SSL_CTX_load_verify_file(context, ca_file) != 1)
		return status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be read as CA certificates in PEM: %s", ca_file, last_reason());
	if (crl_file == NULL)
		return STATUS_OK;
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
	if (lookup == NULL || X509_load_crl_file(lookup, crl_file, X509_FILETYPE_PEM) < 1)
		return status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be read as a CRL in PEM: %s", crl_file, last_reason());
	/* Every certificate of the chain: a CRL that covers only the leaf would let a revoked intermediate pass. */
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return STATUS_OK;
}

enum status tls_client_context(const char *ca_file, const char *crl_file, SSL_CTX **ret_context, char **ret_why)
{
	if (ret_why != NULL)
		*ret_why = NULL;
	ERR_clear_error();
	SSL_CTX *context = new_context(TLS_client_method());
	if (context == NULL)
		return status_because(STATUS_AGENT_INTERNAL, ret_why, "OpenSSL gives no context: %s", last_reason());
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	enum status status = load_trust(context, ca_file, crl_file, ret_why);
	if (status == STATUS_OK)
		*ret_context = context;
	else
		SSL_CTX_free(context);
	ERR_clear_error();
	return status;
}

static enum status load_identity(SSL_CTX *context, const char *certificate_file, const char *key_file, char **ret_why)
{
	if (SSL_CTX_use_certificate_chain_file(context, certificate_file) != 1)
		return status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be read as a certificate chain in PEM: %s", certificate_file, last_reason());
	if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1)
		return status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be read as the private key in PEM of %s: %s", key_file, certificate_file, last_reason());
	if (SSL_CTX_check_private_key(context) != 1)
		return status_because(STATUS_LOCAL_CONFIG, ret_why, "%s: is not the key of %s", key_file, certificate_file);
	return STATUS_OK;
}

/* A key with a passphrase is an error, not a question on the terminal of a daemon. */
static int no_passphrase(char *buffer, int size, int writing, void *arg)
{
	return -1;
}

enum status tls_server_context(const char *certificate_file, const char *key_file, SSL_CTX **ret_context, char **ret_why)
{
	if (ret_why != NULL)
		*ret_why = NULL;
	ERR_clear_error();
	SSL_CTX *context = new_context(TLS_server_method());
	if (context == NULL)
		return status_because(STATUS_AGENT_INTERNAL, ret_why, "OpenSSL gives no context: %s", last_reason());
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_default_passwd_cb(context, no_passphrase);
	enum status status = load_identity(context, certificate_file, key_file, ret_why);
	if (status == STATUS_OK)
		*ret_context = context;
	else
		SSL_CTX_free(context);
	ERR_clear_error();
	return status;
}

static STACK_OF(X509) *read_chain(const char *file)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	BIO *bio = BIO_new_file(file, "r");
	X509 *certificate;
	while (bio != NULL && chain != NULL && (certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL)
		if (sk_X509_push(chain, certificate) <= 0)
			X509_free(certificate);
	BIO_free(bio);
	return chain;
}

static EVP_PKEY *read_key(const char *file)
{
	BIO *bio = BIO_new_file(file, "r");
	EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	return key;
}

enum status tls_client_identity(SSL_CTX *context, const char *certificate_file, const char *key_file, char **ret_why)
{
	if (ret_why != NULL)
		*ret_why = NULL;
	ERR_clear_error();
	STACK_OF(X509) *chain = read_chain(certificate_file);
	X509 *leaf = sk_X509_num(chain) > 0 ? sk_X509_shift(chain) : NULL;
	EVP_PKEY *key = read_key(key_file);
	enum status status = STATUS_OK;
	if (leaf == NULL)
		status = status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be read as a certificate chain in PEM: %s", certificate_file, last_reason());
	else if (key == NULL)
		status = status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be read as a private key in PEM without a passphrase: %s", key_file, last_reason());
	else if (X509_check_private_key(leaf, key) != 1)
		status = status_because(STATUS_LOCAL_CONFIG, ret_why, "%s: is not the key of %s", key_file, certificate_file);
	else if (SSL_CTX_use_cert_and_key(context, leaf, key, chain, 1) != 1)
		status = status_because(STATUS_LOCAL_CONFIG, ret_why, "%s: OpenSSL takes no such certificate: %s", certificate_file, last_reason());
	EVP_PKEY_free(key);
	X509_free(leaf);
	sk_X509_pop_free(chain, X509_free);
	ERR_clear_error();
	return status;
}

size_t tls_server_end_point(X509 *certificate, uint8_t ret_hash[TLS_BINDING_MAX])
{
	int hash = NID_undef;
	unsigned size = 0;
	uint8_t digest[EVP_MAX_MD_SIZE];
	if (X509_get_signature_info(certificate, &hash, NULL, NULL, NULL) != 1 || hash == NID_undef)
		return 0;
	const EVP_MD *method = hash == NID_md5 || hash == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(hash);
	if (method == NULL || X509_digest(certificate, method, digest, &size) != 1 || size > TLS_BINDING_MAX)
		return 0;
	memcpy(ret_hash, digest, size);
	return size;
}

static bool is_address(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];
	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static bool expect_peer(SSL *ssl, const char *host)
{
	if (is_address(host))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

enum status tls_client_new(SSL_CTX *context, const char *host, SSL **ret_ssl)
{
	char name[HOST_LIMIT + 2];
	size_t size = strlen(host);
	/* OpenSSL takes a leading dot for "any name below", and an empty name for "do not check". */
	if (size == 0 || size >= sizeof name || host[0] == '.')
		return STATUS_LOCAL_INPUT;
	snprintf(name, sizeof name, "%s", host);
	/* An absolute name ends in a dot; certificates and SNI (RFC 6066 section 3) leave it out. */
	if (name[size - 1] == '.')
		name[--size] = '\0';
	if (size == 0 || size > HOST_LIMIT)
		return STATUS_LOCAL_INPUT;
	SSL *ssl = SSL_new(context);
	if (ssl == NULL || !expect_peer(ssl, name)) {
		SSL_free(ssl);
		ERR_clear_error();
		return STATUS_AGENT_INTERNAL;
	}
	SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	SSL_set_connect_state(ssl);
	*ret_ssl = ssl;
	return STATUS_OK;
}

static enum status verify_status(long result)
{
	static const struct { int result; enum status status; } rows[] = {
		{ X509_V_ERR_HOSTNAME_MISMATCH, STATUS_TLS_NAME },
		{ X509_V_ERR_IP_ADDRESS_MISMATCH, STATUS_TLS_NAME },
		{ X509_V_ERR_CERT_HAS_EXPIRED, STATUS_TLS_EXPIRED },
		{ X509_V_ERR_CERT_NOT_YET_VALID, STATUS_TLS_EXPIRED },
		{ X509_V_ERR_CERT_REVOKED, STATUS_TLS_REVOKED },
		{ X509_V_ERR_UNABLE_TO_GET_CRL, STATUS_TLS_REVOKED },
		{ X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER, STATUS_TLS_REVOKED },
		{ X509_V_ERR_UNABLE_TO_DECRYPT_CRL_SIGNATURE, STATUS_TLS_REVOKED },
		{ X509_V_ERR_CRL_SIGNATURE_FAILURE, STATUS_TLS_REVOKED },
		{ X509_V_ERR_CRL_NOT_YET_VALID, STATUS_TLS_REVOKED },
		{ X509_V_ERR_CRL_HAS_EXPIRED, STATUS_TLS_REVOKED },
		{ X509_V_ERR_ERROR_IN_CRL_LAST_UPDATE_FIELD, STATUS_TLS_REVOKED },
		{ X509_V_ERR_ERROR_IN_CRL_NEXT_UPDATE_FIELD, STATUS_TLS_REVOKED },
		{ X509_V_ERR_KEYUSAGE_NO_CRL_SIGN, STATUS_TLS_REVOKED },
		{ X509_V_ERR_UNHANDLED_CRITICAL_CRL_EXTENSION, STATUS_TLS_REVOKED },
		{ X509_V_ERR_DIFFERENT_CRL_SCOPE, STATUS_TLS_REVOKED },
		{ X509_V_ERR_CRL_PATH_VALIDATION_ERROR, STATUS_TLS_REVOKED },
		{ X509_V_ERR_OUT_OF_MEM, STATUS_TLS_FAILED },
		{ X509_V_ERR_UNSPECIFIED, STATUS_TLS_FAILED },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].result == result)
			return rows[i].status;
	return STATUS_TLS_UNTRUSTED;
}

enum status tls_failure(SSL *ssl, unsigned long error, char *why, size_t capacity)
{
	long result = SSL_get_verify_result(ssl);
	if (result != X509_V_OK) {
		snprintf(why, capacity, "the peer's certificate was refused: %s", X509_verify_cert_error_string(result));
		return verify_status(result);
	}
	if (error == 0)
		snprintf(why, capacity, "the connection ended during the TLS handshake");
	else
		snprintf(why, capacity, "the TLS handshake failed: %s", tls_reason(error));
	return STATUS_TLS_FAILED;
}

/* The peer chose this text: what is not printable ASCII becomes a question mark. */
static void append_text(char *out, size_t capacity, const char *text, size_t size)
{
	size_t at = strlen(out);
	for (size_t i = 0; i < size && at + 1 < capacity; i++)
		out[at++] = text[i] > ' ' - 1 && text[i] < 0x7F ? text[i] : '?';
	out[at] = '\0';
}

static void append_name(char *out, size_t capacity, const GENERAL_NAME *name)
{
	char address[INET6_ADDRSTRLEN] = "";
	int type;
	const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
	if (type != GEN_DNS && type != GEN_IPADD)
		return;
	const unsigned char *data = ASN1_STRING_get0_data(value);
	size_t size = (size_t)ASN1_STRING_length(value);
	if (type == GEN_IPADD) {
		if ((size != 4 && size != 16) || inet_ntop(size == 4 ? AF_INET : AF_INET6, data, address, sizeof address) == NULL)
			return;
		data = (const unsigned char *)address;
		size = strlen(address);
	}
	if (out[0] != '\0')
		append_text(out, capacity, ", ", 2);
	append_text(out, capacity, (const char *)data, size);
}

static void describe_names(X509 *certificate, struct tls_peer *peer)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		append_name(peer->subject_alt_name, sizeof peer->subject_alt_name, sk_GENERAL_NAME_value(names, i));
	GENERAL_NAMES_free(names);
	char *issuer = X509_NAME_oneline(X509_get_issuer_name(certificate), NULL, 0);
	if (issuer != NULL)
		append_text(peer->issuer, sizeof peer->issuer, issuer, strlen(issuer));
	OPENSSL_free(issuer);
}

static void describe_certificate(X509 *certificate, struct tls_peer *peer)
{
	struct tm not_after;
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	describe_names(certificate, peer);
	if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &not_after) == 1)
		peer->not_after = timegm(&not_after);
	if (X509_digest(certificate, EVP_sha256(), digest, &size) == 1)
		hex_encode(bytes_of(digest, 32), peer->sha256);
}

void tls_describe(SSL *ssl, struct tls_peer *ret_peer)
{
	*ret_peer = (struct tls_peer){ 0 };
	snprintf(ret_peer->version, sizeof ret_peer->version, "%s", SSL_get_version(ssl));
	const char *cipher = SSL_get_cipher_name(ssl);
	snprintf(ret_peer->cipher, sizeof ret_peer->cipher, "%s", cipher == NULL ? "" : cipher);
	X509 *certificate = SSL_get1_peer_certificate(ssl);
	if (certificate != NULL)
		describe_certificate(certificate, ret_peer);
	X509_free(certificate);
}
