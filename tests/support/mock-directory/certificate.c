#include "certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct pair {
	X509 *certificate;
	EVP_PKEY *key;
};

static void pair_free(struct pair *pair)
{
	X509_free(pair->certificate);
	EVP_PKEY_free(pair->key);
	*pair = (struct pair){ 0 };
}

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	bool good = extension && X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
	return good;
}

static bool name_and_dates(X509 *certificate, const char *common_name, EVP_PKEY *key)
{
	uint8_t serial[16];
	if (RAND_bytes(serial, sizeof serial) != 1)
		return false;
	serial[0] &= 0x7f;
	BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
	BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
	BN_free(number);
	X509_set_version(certificate, 2);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -86400);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 365 * 86400L);
	return X509_set_pubkey(certificate, key)
	       && X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0);
}

/* `names`: subjectAltName, or NULL for a CA that signs itself. */
static bool issue(const char *common_name, const char *names, const struct pair *ca, struct pair *ret_pair)
{
	struct pair fresh = { X509_new(), EVP_EC_gen("P-256") };
	const struct pair *issuer = ca ? ca : &fresh;
	bool good = fresh.certificate && fresh.key && name_and_dates(fresh.certificate, common_name, fresh.key)
		&& X509_set_issuer_name(fresh.certificate, X509_get_subject_name(issuer->certificate))
		&& add_extension(fresh.certificate, issuer->certificate, NID_basic_constraints, ca ? "critical,CA:FALSE" : "critical,CA:TRUE")
		&& add_extension(fresh.certificate, issuer->certificate, NID_key_usage, ca ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign")
		&& add_extension(fresh.certificate, issuer->certificate, NID_subject_key_identifier, "hash")
		&& add_extension(fresh.certificate, issuer->certificate, NID_authority_key_identifier, "keyid:always")
		&& (!names || (add_extension(fresh.certificate, issuer->certificate, NID_subject_alt_name, names)
			&& add_extension(fresh.certificate, issuer->certificate, NID_ext_key_usage, "serverAuth")))
		&& X509_sign(fresh.certificate, issuer->key, EVP_sha256()) > 0;
	if (good)
		*ret_pair = fresh;
	else
		pair_free(&fresh);
	return good;
}

static char *path_of(const char *folder, const char *name, const char *suffix)
{
	char *path;
	if (asprintf(&path, "%s/%s%s", folder, name, suffix) < 0)
		abort();
	return path;
}

static void read_pair(const char *folder, const char *name, struct pair *ret_pair)
{
	char *certificate = path_of(folder, name, ".pem"), *key = path_of(folder, name, ".key");
	FILE *file = fopen(certificate, "r");
	if (file) {
		ret_pair->certificate = PEM_read_X509(file, NULL, NULL, NULL);
		fclose(file);
	}
	file = fopen(key, "r");
	if (file) {
		ret_pair->key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
		fclose(file);
	}
	free(certificate);
	free(key);
	if (!ret_pair->certificate || !ret_pair->key || X509_check_private_key(ret_pair->certificate, ret_pair->key) != 1)
		pair_free(ret_pair);
	ERR_clear_error();
}

/* Renamed into place, so that another server on the same folder never reads half of it. */
static bool write_one(const char *folder, const char *name, const char *suffix, const struct pair *pair, bool key)
{
	char *path = path_of(folder, name, suffix), *fresh = path_of(folder, name, ".XXXXXX");
	int fd = mkstemp(fresh);
	FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
	bool good = file && (key ? PEM_write_PrivateKey(file, pair->key, NULL, NULL, 0, NULL, NULL) : PEM_write_X509(file, pair->certificate)) == 1;
	if (fd >= 0 && !key)
		fchmod(fd, 0644);
	if (file)
		good &= !fclose(file);
	good = good && !rename(fresh, path);
	free(path);
	free(fresh);
	return good;
}

static bool write_pair(const char *folder, const char *name, const struct pair *pair)
{
	return write_one(folder, name, ".key", pair, true) && write_one(folder, name, ".pem", pair, false);
}

static bool fits(const struct pair *server, const struct pair *ca, const char *host)
{
	return server->certificate && X509_check_host(server->certificate, host, 0, 0, NULL) == 1 && X509_verify(server->certificate, ca->key) == 1
	       && X509_cmp_current_time(X509_get0_notAfter(server->certificate)) > 0;
}

static bool prepare(const char *folder, const char *host, bool wrong_name, struct pair *ca, struct pair *server)
{
	mkdir(folder, 0755);
	read_pair(folder, "ca", ca);
	if (!ca->certificate && (!issue("Test domain CA", NULL, NULL, ca) || !write_pair(folder, "ca", ca)))
		return false;
	const char *wrong = "another.example.test", *name = wrong_name ? wrong : host;
	read_pair(folder, "dc", server);
	if (fits(server, ca, name))
		return true;
	pair_free(server);
	char *names;
	if (asprintf(&names, wrong_name ? "DNS:%s" : "DNS:%s,DNS:localhost,IP:127.0.0.1", name) < 0)
		abort();
	bool good = issue(name, names, ca, server) && write_pair(folder, "dc", server);
	free(names);
	return good;
}

SSL_CTX *certificate_context(const char *folder, const char *host, bool wrong_name)
{
	struct pair ca = { 0 }, server = { 0 };
	SSL_CTX *context = NULL;
	if (prepare(folder, host, wrong_name, &ca, &server)) {
		context = SSL_CTX_new(TLS_server_method());
		if (!SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) || SSL_CTX_use_certificate(context, server.certificate) != 1
		    || SSL_CTX_use_PrivateKey(context, server.key) != 1) {
			SSL_CTX_free(context);
			context = NULL;
		}
	}
	if (!context) {
		fprintf(stderr, "mock-directory: no certificate in %s\n", folder);
		ERR_print_errors_fp(stderr);
	}
	pair_free(&ca);
	pair_free(&server);
	return context;
}
