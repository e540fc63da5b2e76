/* Certificates are made here with OpenSSL's own API; handshakes run over memory, both ends in one thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/tls.h"

#define DAY 86400L

struct identity {
	EVP_PKEY *key;
	X509 *certificate;
};

/* What a certificate is to be; from and to are seconds from now. */
struct wish {
	const char *common_name, *names;
	long serial, from, to;
	bool authority;
};

static struct identity root, stranger;
static char folder[] = "/tmp/test_tls.XXXXXX";

static const char *path_of(const char *name)
{
	static char paths[8][96];
	static unsigned turn;
	char *path = paths[turn++ % 8];
	snprintf(path, 96, "%s/%s", folder, name);
	return path;
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	assert_non_null(extension);
	X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
}

static struct identity issue(const struct identity *issuer, const struct wish *wish)
{
	struct identity made = { EVP_EC_gen("P-256"), X509_new() };
	X509 *c = made.certificate;
	X509_set_version(c, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(c), wish->serial);
	X509_gmtime_adj(X509_getm_notBefore(c), wish->from);
	X509_gmtime_adj(X509_getm_notAfter(c), wish->to);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_UTF8, (const unsigned char *)wish->common_name, -1, -1, 0);
	X509_set_issuer_name(c, X509_get_subject_name(issuer == NULL ? c : issuer->certificate));
	X509_set_pubkey(c, made.key);
	X509 *signer = issuer == NULL ? c : issuer->certificate;
	if (wish->authority) {
		add_extension(c, signer, NID_basic_constraints, "critical,CA:TRUE");
		add_extension(c, signer, NID_key_usage, "critical,keyCertSign,cRLSign");
		add_extension(c, signer, NID_subject_key_identifier, "hash");
	}
	if (wish->names != NULL)
		add_extension(c, signer, NID_subject_alt_name, wish->names);
	assert_true(X509_sign(c, issuer == NULL ? made.key : issuer->key, EVP_sha256()) > 0);
	return made;
}

static void identity_free(struct identity *identity)
{
	EVP_PKEY_free(identity->key);
	X509_free(identity->certificate);
}

static void save(const char *name, const struct identity *identity)
{
	char key_name[32];
	snprintf(key_name, sizeof key_name, "%s.key", name);
	FILE *file = fopen(path_of(name), "w");
	PEM_write_X509(file, identity->certificate);
	fclose(file);
	file = fopen(path_of(key_name), "w");
	PEM_write_PrivateKey(file, identity->key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
}

static void save_crl(const char *name, long revoked_serial, long next_update)
{
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *time = ASN1_TIME_new();
	X509_CRL_set_version(crl, X509_CRL_VERSION_2);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(root.certificate));
	X509_CRL_set1_lastUpdate(crl, X509_gmtime_adj(time, -2 * DAY));
	X509_CRL_set1_nextUpdate(crl, X509_gmtime_adj(time, next_update));
	if (revoked_serial != 0) {
		X509_REVOKED *revoked = X509_REVOKED_new();
		ASN1_INTEGER *serial = ASN1_INTEGER_new();
		ASN1_INTEGER_set(serial, revoked_serial);
		X509_REVOKED_set_serialNumber(revoked, serial);
		X509_REVOKED_set_revocationDate(revoked, X509_gmtime_adj(time, -DAY));
		X509_CRL_add0_revoked(crl, revoked);
		ASN1_INTEGER_free(serial);
	}
	assert_true(X509_CRL_sign(crl, root.key, EVP_sha256()) > 0);
	FILE *file = fopen(path_of(name), "w");
	PEM_write_X509_CRL(file, crl);
	fclose(file);
	ASN1_TIME_free(time);
	X509_CRL_free(crl);
}

static int set_up(void **state)
{
	assert_non_null(mkdtemp(folder));
	root = issue(NULL, &(struct wish){ "Test Root", NULL, 1, -DAY, 30 * DAY, true });
	stranger = issue(NULL, &(struct wish){ "Other Root", NULL, 1, -DAY, 30 * DAY, true });
	save("root", &root);
	save("stranger", &stranger);
	return 0;
}

static int tear_down(void **state)
{
	char command[64];
	snprintf(command, sizeof command, "rm -rf %s", folder);
	identity_free(&root);
	identity_free(&stranger);
	return system(command);
}

/* One handshake to the end; the client's last word. */
struct handshake {
	SSL_CTX *client_context, *server_context;
	SSL *client, *server;
	enum status status;
	char why[256];
};

static void turn(struct handshake *h)
{
	for (int i = 0; i < 20; i++) {
		ERR_clear_error();
		int result = SSL_do_handshake(h->client);
		int error = SSL_get_error(h->client, result);
		if (result != 1 && error != SSL_ERROR_WANT_READ) {
			h->status = tls_failure(h->client, ERR_get_error(), h->why, sizeof h->why);
			break;
		}
		ERR_clear_error();
		int answer = SSL_do_handshake(h->server);
		if (result == 1 && answer == 1) {
			h->status = STATUS_OK;
			return;
		}
		if (answer != 1 && SSL_get_error(h->server, answer) != SSL_ERROR_WANT_READ) {
			h->status = tls_failure(h->client, ERR_get_error(), h->why, sizeof h->why);
			break;
		}
	}
	ERR_clear_error();
}

static void connect_ends(struct handshake *h)
{
	BIO *a, *b;
	assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
	SSL_set_bio(h->client, a, a);
	SSL_set_bio(h->server, b, b);
	SSL_set_accept_state(h->server);
}

static void begin(struct handshake *h, const struct identity *identity, const char *ca, const char *crl, const char *host)
{
	char *why = NULL;
	*h = (struct handshake){ .status = STATUS_TLS_FAILED };
	save("server", identity);
	assert_int_equal(tls_client_context(path_of(ca), crl == NULL ? NULL : path_of(crl), &h->client_context, &why), STATUS_OK);
	assert_null(why);
	assert_int_equal(tls_server_context(path_of("server"), path_of("server.key"), &h->server_context, &why), STATUS_OK);
	assert_int_equal(tls_client_new(h->client_context, host, &h->client), STATUS_OK);
	h->server = SSL_new(h->server_context);
	connect_ends(h);
}

static void finish(struct handshake *h)
{
	SSL_free(h->client);
	SSL_free(h->server);
	SSL_CTX_free(h->client_context);
	SSL_CTX_free(h->server_context);
}

static void expect(const struct wish *wish, const struct identity *issuer, const char *crl, const char *host, enum status expected)
{
	struct identity identity = issue(issuer, wish);
	struct handshake h;
	begin(&h, &identity, "root", crl, host);
	turn(&h);
	if (h.status != expected)
		print_message("# %s: got %s (%s), expected %s\n", host, status_code(h.status), h.why, status_code(expected));
	assert_int_equal(h.status, expected);
	assert_int_equal(h.status != STATUS_OK, h.why[0] != '\0');
	finish(&h);
	identity_free(&identity);
}

static void names_count_only_as_san(void **state)
{
	struct wish named = { "wrong.example", "DNS:dc1.example,DNS:*.wild.example,DNS:f*.part.example,IP:192.0.2.7,IP:2001:db8::7", 7, -DAY, DAY, false };
	expect(&named, &root, NULL, "dc1.example", STATUS_OK);
	expect(&named, &root, NULL, "DC1.example", STATUS_OK);
	expect(&named, &root, NULL, "dc1.example.", STATUS_OK);
	expect(&named, &root, NULL, "a.wild.example", STATUS_OK);
	expect(&named, &root, NULL, "192.0.2.7", STATUS_OK);
	expect(&named, &root, NULL, "2001:db8:0::7", STATUS_OK);
	expect(&named, &root, NULL, "dc2.example", STATUS_TLS_NAME);
	expect(&named, &root, NULL, "wrong.example", STATUS_TLS_NAME);
	expect(&named, &root, NULL, "a.b.wild.example", STATUS_TLS_NAME);
	expect(&named, &root, NULL, "wild.example", STATUS_TLS_NAME);
	expect(&named, &root, NULL, "foo.part.example", STATUS_TLS_NAME);
	expect(&named, &root, NULL, "192.0.2.8", STATUS_TLS_NAME);
	expect(&named, &root, NULL, "2001:db8::8", STATUS_TLS_NAME);
	/* A certificate without names has none, whatever its CN says. */
	expect(&(struct wish){ "dc1.example", NULL, 8, -DAY, DAY, false }, &root, NULL, "dc1.example", STATUS_TLS_NAME);
	/* A DNS name that looks like an address is no address. */
	expect(&(struct wish){ "x", "DNS:192.0.2.7", 8, -DAY, DAY, false }, &root, NULL, "192.0.2.7", STATUS_TLS_NAME);
}

static void chains_end_in_the_given_root(void **state)
{
	struct wish named = { "x", "DNS:dc1.example", 7, -DAY, DAY, false };
	expect(&named, &stranger, NULL, "dc1.example", STATUS_TLS_UNTRUSTED);
	expect(&named, NULL, NULL, "dc1.example", STATUS_TLS_UNTRUSTED);
	/* Not the name's error where both are wrong: whom one does not trust has no name. */
	expect(&named, &stranger, NULL, "dc2.example", STATUS_TLS_UNTRUSTED);
}

static void dates_count(void **state)
{
	expect(&(struct wish){ "x", "DNS:dc1.example", 7, -2 * DAY, -DAY, false }, &root, NULL, "dc1.example", STATUS_TLS_EXPIRED);
	expect(&(struct wish){ "x", "DNS:dc1.example", 7, DAY, 2 * DAY, false }, &root, NULL, "dc1.example", STATUS_TLS_EXPIRED);
}

static void revoked_certificates_are_refused(void **state)
{
	struct wish named = { "x", "DNS:dc1.example", 7, -DAY, DAY, false };
	save_crl("fresh.crl", 7, DAY);
	save_crl("old.crl", 0, -DAY);
	expect(&named, &root, "fresh.crl", "dc1.example", STATUS_TLS_REVOKED);
	expect(&named, &root, "old.crl", "dc1.example", STATUS_TLS_REVOKED);
	named.serial = 8;
	expect(&named, &root, "fresh.crl", "dc1.example", STATUS_OK);
}

static void old_versions_are_refused(void **state)
{
	struct identity identity = issue(&root, &(struct wish){ "x", "DNS:dc1.example", 7, -DAY, DAY, false });
	struct handshake h;
	begin(&h, &identity, "root", NULL, "dc1.example");
	SSL_set_security_level(h.server, 0);
	SSL_set_min_proto_version(h.server, TLS1_VERSION);
	SSL_set_max_proto_version(h.server, TLS1_1_VERSION);
	turn(&h);
	/* Not only where the system's openssl.cnf says so. */
	assert_int_equal(SSL_CTX_get_min_proto_version(h.client_context), TLS1_2_VERSION);
	assert_int_equal(SSL_CTX_get_min_proto_version(h.server_context), TLS1_2_VERSION);
	assert_int_equal(h.status, STATUS_TLS_FAILED);
	assert_non_null(strstr(h.why, "handshake failed"));
	finish(&h);
	identity_free(&identity);
}

static void names_itself_by_sni_and_describes(void **state)
{
	struct identity identity = issue(&root, &(struct wish){ "x", "DNS:dc1.example,IP:192.0.2.7", 7, -DAY, DAY, false });
	struct handshake h;
	struct tls_peer peer;
	begin(&h, &identity, "root", NULL, "dc1.example.");
	turn(&h);
	assert_int_equal(h.status, STATUS_OK);
	assert_string_equal(SSL_get_servername(h.server, TLSEXT_NAMETYPE_host_name), "dc1.example");
	tls_describe(h.client, &peer);
	assert_string_equal(peer.version, "TLSv1.3");
	assert_string_equal(peer.subject_alt_name, "dc1.example, 192.0.2.7");
	assert_string_equal(peer.issuer, "/CN=Test Root");
	assert_int_equal(strlen(peer.sha256), 64);
	assert_in_range(peer.not_after, time(NULL) + DAY - 60, time(NULL) + DAY + 60);
	assert_true(peer.cipher[0] != '\0');
	/* The server saw no certificate. */
	tls_describe(h.server, &peer);
	assert_string_equal(peer.sha256, "");
	finish(&h);
	identity_free(&identity);
}

static void closed_connections_have_a_reason(void **state)
{
	SSL_CTX *context;
	SSL *ssl;
	char why[128];
	assert_int_equal(tls_client_context(path_of("root"), NULL, &context, NULL), STATUS_OK);
	assert_int_equal(tls_client_new(context, "dc1.example", &ssl), STATUS_OK);
	assert_int_equal(tls_failure(ssl, 0, why, sizeof why), STATUS_TLS_FAILED);
	assert_string_equal(why, "the connection ended during the TLS handshake");
	SSL_free(ssl);
	SSL_CTX_free(context);
}

static void odd_hosts_are_refused(void **state)
{
	SSL_CTX *context;
	SSL *ssl = NULL;
	char long_name[300];
	memset(long_name, 'a', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	assert_int_equal(tls_client_context(NULL, NULL, &context, NULL), STATUS_OK);
	const char *const hosts[] = { "", ".", ".example", long_name };
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(tls_client_new(context, hosts[i], &ssl), STATUS_LOCAL_INPUT);
	assert_null(ssl);
	/* An address is no name to send (RFC 6066 section 3). */
	assert_int_equal(tls_client_new(context, "192.0.2.7", &ssl), STATUS_OK);
	assert_null(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
	SSL_free(ssl);
	SSL_CTX_free(context);
}

static void wrong_files_are_named(void **state)
{
	SSL_CTX *context = NULL;
	char *why = NULL;
	struct identity other = issue(&root, &(struct wish){ "x", "DNS:x", 9, -DAY, DAY, false });
	save("other", &other);
	assert_int_equal(tls_client_context("/nowhere/ca.pem", NULL, &context, &why), STATUS_LOCAL_SYSTEM);
	assert_non_null(strstr(why, "/nowhere/ca.pem"));
	assert_non_null(strstr(why, "No such file"));
	free(why);
	assert_int_equal(tls_client_context(path_of("root"), path_of("root"), &context, &why), STATUS_LOCAL_SYSTEM);
	free(why);
	assert_int_equal(tls_client_context(path_of("root.key"), NULL, &context, NULL), STATUS_LOCAL_SYSTEM);
	assert_int_equal(tls_server_context(path_of("none"), path_of("other.key"), &context, &why), STATUS_LOCAL_SYSTEM);
	free(why);
	assert_int_equal(tls_server_context(path_of("root"), path_of("none"), &context, NULL), STATUS_LOCAL_SYSTEM);
	assert_int_not_equal(tls_server_context(path_of("root"), path_of("other.key"), &context, &why), STATUS_OK);
	assert_non_null(strstr(why, "other.key"));
	free(why);
	assert_null(context);
	identity_free(&other);
}

static void expect_binding(EVP_PKEY *key, const EVP_MD *signed_by, const EVP_MD *hashed_by)
{
	uint8_t found[TLS_BINDING_MAX], expected[EVP_MAX_MD_SIZE], *der = NULL;
	unsigned size = 0;
	X509 *certificate = X509_new();
	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), DAY);
	X509_set_pubkey(certificate, key);
	assert_true(X509_sign(certificate, key, signed_by) > 0);
	int der_size = i2d_X509(certificate, &der);
	if (hashed_by != NULL)
		assert_int_equal(EVP_Digest(der, der_size, expected, &size, hashed_by, NULL), 1);
	assert_int_equal(tls_server_end_point(certificate, found), size);
	assert_memory_equal(found, expected, size);
	OPENSSL_free(der);
	X509_free(certificate);
}

/* RFC 5929 section 4.1. */
static void end_points_are_hashed_as_they_are_signed(void **state)
{
	EVP_PKEY *ec = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048), *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	expect_binding(ec, EVP_sha256(), EVP_sha256());
	expect_binding(ec, EVP_sha384(), EVP_sha384());
	expect_binding(rsa, EVP_sha512(), EVP_sha512());
	expect_binding(rsa, EVP_sha224(), EVP_sha224());
	expect_binding(rsa, EVP_sha1(), EVP_sha256());
	expect_binding(rsa, EVP_md5(), EVP_sha256());
	expect_binding(ed, NULL, NULL);
	EVP_PKEY_free(ec);
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(ed);
}

/* A certificate made with openssl, its hash by `openssl x509 -outform DER | sha256sum`. */
static void an_end_point_as_others_compute_it(void **state)
{
	static const char PEM[] = 
		"-----BEGIN CERTIFICATE-----\n"
		"MIIBgjCCASmgAwIBAgIUEREYeyzV80s1CwTbpSfWEDZJCwYwCgYIKoZIzj0EAwIw\n"
		"FjEUMBIGA1UEAwwLZGMxLmV4YW1wbGUwIBcNMjYxMTIyMjAwODQwWhgPMjEyNjEw\n"
		"MjkyMDA4NDBaMBYxFDASBgNVBAMMC2RjMS5leGFtcGxlMFkwEwYHKoZIzj0CAQYI\n"
		"KoZIzj0DAQcDQgAEdjNlWFPHurIQI/tcG5+EwiuS4/ZkwgegpUUM+V/uVPT0uB2q\n"
		"3fcIhGV0LZm3z2mNNm4VBchZCUyU+VsN74aX0aNTMFEwHQYDVR0OBBYEFNtJ+NfE\n"
		"gf2vrRIj0CLygcei3I1NMB8GA1UdIwQYMBaAFNtJ+NfEgf2vrRIj0CLygcei3I1N\n"
		"MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgYRxoAgjzHPR2g8DN\n"
		"cxleihpb4XP8BFbGwJE8JHpmA7UCIH5w3iAMmYRq319mAmJ2gl4shCmHJgMUoSqt\n"
		"UM0pA7Io\n"
		"-----END CERTIFICATE-----\n";
	BIO *bio = BIO_new_mem_buf(PEM, -1);
	X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	uint8_t found[TLS_BINDING_MAX];
	char hex[2 * TLS_BINDING_MAX + 1];
	assert_non_null(certificate);
	assert_int_equal(tls_server_end_point(certificate, found), 32);
	hex_encode(bytes_of(found, 32), hex);
	assert_string_equal(hex, "efc6ed839af217f18eef865cef08c2d2623f2866e272634e6ce04fd8604684cf");
	X509_free(certificate);
	BIO_free(bio);
}

static void a_client_shows_its_certificate_or_keeps_the_old(void **state)
{
	SSL_CTX *context = NULL;
	char *why = NULL;
	struct identity one = issue(&root, &(struct wish){ "one", NULL, 21, -DAY, DAY, false }), two = issue(&root, &(struct wish){ "two", NULL, 22, -DAY, DAY, false });
	save("one", &one);
	save("two", &two);
	assert_int_equal(tls_client_context(path_of("root"), NULL, &context, &why), STATUS_OK);
	assert_int_equal(tls_client_identity(context, path_of("one"), path_of("one.key"), &why), STATUS_OK);
	assert_int_equal(X509_cmp(SSL_CTX_get0_certificate(context), one.certificate), 0);
	static const struct { const char *certificate, *key, *says; enum status status; } BAD[] = {
		{ "two", "one.key", "is not the key of", STATUS_LOCAL_CONFIG },
		{ "none", "two.key", "cannot be read as a certificate chain", STATUS_LOCAL_SYSTEM },
		{ "two", "none", "cannot be read as a private key", STATUS_LOCAL_SYSTEM },
		{ "two.key", "two.key", "cannot be read as a certificate chain", STATUS_LOCAL_SYSTEM },
	};
	for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
		assert_int_equal(tls_client_identity(context, path_of(BAD[i].certificate), path_of(BAD[i].key), &why), BAD[i].status);
		assert_non_null(strstr(why, BAD[i].says));
		free(why);
		assert_int_equal(X509_cmp(SSL_CTX_get0_certificate(context), one.certificate), 0);
	}
	assert_int_equal(tls_client_identity(context, path_of("two"), path_of("two.key"), &why), STATUS_OK);
	assert_int_equal(X509_cmp(SSL_CTX_get0_certificate(context), two.certificate), 0);
	SSL_CTX_free(context);
	identity_free(&one);
	identity_free(&two);
}

/* After the handshake the peer sends `count` handshake messages, each in a record of its own, all made beforehand; and then a greeting. */
struct flood {
	int version, count;
	bool by_server;
	const char *arrives;
};

static void ask_again(SSL *ssl)
{
	if (SSL_version(ssl) == TLS1_3_VERSION)
		assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
	else
		assert_int_equal(SSL_renegotiate(ssl), 1);
	assert_int_equal(SSL_do_handshake(ssl), 1);
}

static void send_flood(SSL *ssl, int fd, int count)
{
	char *data;
	BIO *memory = BIO_new(BIO_s_mem());
	SSL_set0_wbio(ssl, memory);
	SSL_clear_options(ssl, SSL_OP_NO_RENEGOTIATION);
	for (int i = 0; i < count; i++)
		ask_again(ssl);
	assert_int_equal(SSL_write(ssl, "hello", 5), 5);
	long size = BIO_get_mem_data(memory, &data);
	assert_int_equal(write(fd, data, size), size);
}

static void on_end(struct bufferevent *bev, short what, void *ended)
{
	*(short *)ended |= what;
}

/* How many turns of the loop until there is text or an end: none of them may take more than one record from the socket, for whatever else waits in the loop waits so long. */
static int turn_until_text_or_end(struct event_base *base, struct bufferevent *bev, const short *ended)
{
	enum { RECORD_MOST = 64 };
	int turns = 0, before, after, fd = bufferevent_getfd(bev);
	while (*ended == 0 && evbuffer_get_length(bufferevent_get_input(bev)) == 0) {
		assert_int_equal(ioctl(fd, FIONREAD, &before), 0);
		assert_true(before > 0);
		event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		assert_int_equal(ioctl(fd, FIONREAD, &after), 0);
		assert_true(before - after <= RECORD_MOST);
		turns++;
	}
	return turns;
}

static void meet(const struct flood *flood)
{
	struct identity identity = issue(&root, &(struct wish){ "x", "DNS:dc1.example", 7, -DAY, DAY, false });
	struct event_base *base = event_base_new();
	struct handshake h;
	short ended = 0;
	int fds[2];
	begin(&h, &identity, "root", NULL, "dc1.example");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	SSL_set_fd(h.client, fds[0]);
	SSL_set_fd(h.server, fds[1]);
	SSL_set_max_proto_version(h.client, flood->version);
	turn(&h);
	assert_int_equal(h.status, STATUS_OK);
	SSL *peer = flood->by_server ? h.server : h.client, *ours = flood->by_server ? h.client : h.server;
	struct bufferevent *bev = bufferevent_openssl_socket_new(base, fds[!flood->by_server], ours, BUFFEREVENT_SSL_OPEN, 0);
	bufferevent_setcb(bev, NULL, NULL, on_end, &ended);
	bufferevent_enable(bev, EV_READ);
	send_flood(peer, fds[flood->by_server], flood->count);
	int turns = turn_until_text_or_end(base, bev, &ended);
	size_t size = evbuffer_get_length(bufferevent_get_input(bev));
	assert_int_equal(size, strlen(flood->arrives));
	assert_memory_equal(evbuffer_pullup(bufferevent_get_input(bev), -1), flood->arrives, size);
	assert_true(size > 0 ? ended == 0 && turns > flood->count : ended != 0 && turns < flood->count);
	bufferevent_free(bev);
	event_base_free(base);
	close(fds[0]);
	close(fds[1]);
	finish(&h);
	identity_free(&identity);
}

static void handshakes_after_the_handshake_take_turns_and_have_an_end(void **state)
{
	static const struct flood FLOODS[] = {
		{ TLS1_3_VERSION, 0, true, "hello" }, { TLS1_3_VERSION, 500, true, "hello" }, { TLS1_3_VERSION, 500, false, "hello" }, { TLS1_2_VERSION, 500, true, "hello" },
		{ TLS1_3_VERSION, 600, true, "" }, { TLS1_3_VERSION, 600, false, "" }, { TLS1_2_VERSION, 600, true, "" },
	};
	for (size_t i = 0; i < sizeof FLOODS / sizeof FLOODS[0]; i++)
		meet(&FLOODS[i]);
}

/* What OpenSSL takes for as long as it comes: to a client wishes to begin, before anything else; to a server one ClientHello in records of one octet. */
static void handshakes_have_an_end(void **state)
{
	enum { HELLO_REQUESTS = 1000, RECORD = 4 * HELLO_REQUESTS, OCTETS = 2000 };
	static const uint8_t HEAD[] = { SSL3_RT_HANDSHAKE, 3, 3, RECORD >> 8, RECORD & 255 }, HELLO[] = { SSL3_MT_CLIENT_HELLO, 0, OCTETS >> 8, OCTETS & 255 };
	uint8_t requests[sizeof HEAD + RECORD] = { 0 };
	struct identity identity = issue(&root, &(struct wish){ "x", "DNS:dc1.example", 7, -DAY, DAY, false });
	struct handshake h;
	begin(&h, &identity, "root", NULL, "dc1.example");
	memcpy(requests, HEAD, sizeof HEAD);
	for (int i = 0; i < 3; i++)
		assert_int_equal(BIO_write(SSL_get_wbio(h.server), requests, sizeof requests), sizeof requests);
	for (size_t i = 0; i < OCTETS; i++)
		assert_int_equal(BIO_write(SSL_get_wbio(h.client), (uint8_t[]){ SSL3_RT_HANDSHAKE, 3, 1, 0, 1, i < sizeof HELLO ? HELLO[i] : 0 }, 6), 6);
	SSL *ends[] = { h.server, h.client };
	for (size_t i = 0; i < 2; i++) {
		int answer = SSL_do_handshake(ends[i]);
		assert_int_equal(SSL_get_error(ends[i], answer), SSL_ERROR_ZERO_RETURN);
		assert_true(BIO_ctrl_pending(SSL_get_rbio(ends[i])) > 3000);
	}
	finish(&h);
	identity_free(&identity);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_count_only_as_san), cmocka_unit_test(chains_end_in_the_given_root), cmocka_unit_test(dates_count),
		cmocka_unit_test(revoked_certificates_are_refused), cmocka_unit_test(old_versions_are_refused), cmocka_unit_test(names_itself_by_sni_and_describes),
		cmocka_unit_test(closed_connections_have_a_reason), cmocka_unit_test(odd_hosts_are_refused), cmocka_unit_test(wrong_files_are_named),
		cmocka_unit_test(end_points_are_hashed_as_they_are_signed), cmocka_unit_test(an_end_point_as_others_compute_it),
		cmocka_unit_test(a_client_shows_its_certificate_or_keeps_the_old), cmocka_unit_test(handshakes_after_the_handshake_take_turns_and_have_an_end),
		cmocka_unit_test(handshakes_have_an_end),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
