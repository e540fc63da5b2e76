/* What the start finds outside of its configuration: the files and the address that it names. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/tls.h"
#include "service/settings.h"

static const char *who(void)
{
	const struct passwd *entry = getpwuid(geteuid());
	return entry != NULL ? entry->pw_name : "this user";
}

static enum status look(const char *path, const char *what, struct stat *ret_facts, char **ret_why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return status_because(STATUS_LOCAL_CONFIG, ret_why, "%s does not exist: put the %s there, or correct the path", path, what);
	if (fd < 0 && errno == EACCES)
		return status_because(STATUS_LOCAL_CONFIG, ret_why, "%s cannot be read by %s: let that user's group read it (0640), and enter its folders", path, who());
	if (fd < 0)
		return status_because(STATUS_LOCAL_CONFIG, ret_why, "%s cannot be read: %s", path, strerror(errno));
	bool file = fstat(fd, ret_facts) == 0 && S_ISREG(ret_facts->st_mode);
	close(fd);
	return file ? STATUS_OK : status_because(STATUS_LOCAL_CONFIG, ret_why, "%s is no file: it should hold the %s in PEM", path, what);
}

static enum status look_at_key(const char *path, char **ret_why)
{
	struct stat facts = { 0 };
	enum status status = look(path, "private key", &facts, ret_why);
	if (status == STATUS_OK && (facts.st_mode & (S_IRWXO | S_IWGRP)) != 0)
		return status_because(STATUS_LOCAL_CONFIG, ret_why, "%s has mode %04o: %s; it should be 0640 with owner root and the service's group (root:reset-service), or 0600 "
			"with the service's user", path, (unsigned)(facts.st_mode & 07777),
			(facts.st_mode & S_IRWXO) != 0 ? "the private key is open to everybody on this host" : "its group can write the private key");
	return status;
}

enum status settings_tls(const struct settings *settings, SSL_CTX **ret_context, const char **ret_path, char **ret_why)
{
	struct stat facts = { 0 };
	*ret_path = "tls.certificate_file";
	enum status status = look(settings->certificate_file, "certificate chain", &facts, ret_why);
	if (status != STATUS_OK)
		return status;
	*ret_path = "tls.key_file";
	status = look_at_key(settings->key_file, ret_why);
	if (status != STATUS_OK)
		return status;
	char *why = NULL;
	status = tls_server_context(settings->certificate_file, settings->key_file, ret_context, &why);
	size_t length = strlen(settings->certificate_file);
	if (why != NULL && strncmp(why, settings->certificate_file, length) == 0 && why[length] == ':')
		*ret_path = "tls.certificate_file";
	*ret_why = why;
	return status;
}

static void check_tls(const struct settings *settings, struct config_errors *errors, const struct config_document *document)
{
	SSL_CTX *context = NULL;
	const char *path;
	AUTO_FREE char *why = NULL, *key_why = NULL;
	if (settings_tls(settings, &context, &path, &why) != STATUS_OK) {
		config_error_add(errors, document, path, "%s", why != NULL ? why : "the TLS context cannot be made");
		/* Both files at once, where both are wrong. */
		if (strcmp(path, "tls.certificate_file") == 0 && look_at_key(settings->key_file, &key_why) != STATUS_OK)
			config_error_add(errors, document, "tls.key_file", "%s", key_why != NULL ? key_why : settings->key_file);
	}
	SSL_CTX_free(context);
}

static void check_listen(const struct settings *settings, struct config_errors *errors, const struct config_document *document)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	int error = getaddrinfo(settings->listen_host, NULL, &hints, &list);
	if (error == 0)
		freeaddrinfo(list);
	else
		config_error_add(errors, document, "listen", "no address is known for '%s': %s", settings->listen_host, gai_strerror(error));
}

enum status settings_check_start(const struct settings *settings, const struct config_document *document)
{
	struct config_errors errors = { 0 };
	check_tls(settings, &errors, document);
	check_listen(settings, &errors, document);
	enum status status = errors.count > 0 ? STATUS_LOCAL_CONFIG : STATUS_OK;
	config_errors_print(&errors, stderr);
	config_errors_clear(&errors);
	return status;
}
