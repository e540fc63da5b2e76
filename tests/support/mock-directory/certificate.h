/* certificate: the CA and the server's certificate of a test, made by OpenSSL or taken from the folder where they already are. */
#ifndef MOCK_DIRECTORY_CERTIFICATE_H
#define MOCK_DIRECTORY_CERTIFICATE_H

#include <openssl/ssl.h>
#include <stdbool.h>

/* `folder` holds ca.pem, ca.key, dc.pem, dc.key afterwards. The certificate is for `host`, localhost and 127.0.0.1; or, with `wrong_name`, for another name only.
 * NULL: said on stderr. */
SSL_CTX *certificate_context(const char *folder, const char *host, bool wrong_name);

#endif
