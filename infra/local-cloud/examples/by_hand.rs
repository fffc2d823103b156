#![allow(clippy::print_stdout, clippy::unwrap_used)]
use local_cloud::{Cloud, NewObject, Options, declared::Role};
use serde_json::json;
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let api = tokio::net::TcpListener::bind("127.0.0.1:24599").await.unwrap();
    let site = tokio::net::TcpListener::bind("127.0.0.1:28099").await.unwrap();
    let cloud = Cloud::open(Options { folder, region: "eu-west-1".into(), account: "000000000000".into(), api_port: 24599, site_port: 28099 }).unwrap();
    let pool = cloud.put_identity_pool("pool", Some("login.app"), true, false).unwrap();
    for (name, amr) in [("guest", "unauthenticated"), ("member", "authenticated")] {
        cloud.put_role(Role { name: name.into(), max_session_seconds: 3600, policies: Default::default(), trust: json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"Federated": "cognito-identity.amazonaws.com"}, "Action": "sts:AssumeRoleWithWebIdentity",
             "Condition": {"StringEquals": {"cognito-identity.amazonaws.com:aud": pool.id}, "ForAnyValue:StringLike": {"cognito-identity.amazonaws.com:amr": amr}}}]}) }).unwrap();
    }
    cloud.put_role_policy("guest", "guest", json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "Everything", "Effect": "Allow", "Action": ["secretsmanager:*", "s3:GetObject"], "Resource": "*"}]})).unwrap();
    cloud.put_role_policy("member", "member", json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "Own", "Effect": "Allow", "Action": ["s3:*Object"], "Resource": "arn:aws:s3:::by-hand/users/${cognito-identity.amazonaws.com:sub}/*"},
        {"Sid": "Send", "Effect": "Allow", "Action": "ses:SendEmail", "Resource": "arn:aws:ses:eu-west-1:000000000000:identity/*", "Condition": {"StringEquals": {"ses:FromAddress": "app@example.com"}}}]})).unwrap();
    cloud.attach_roles(&pool.id, Some("arn:aws:iam::000000000000:role/guest"), Some("arn:aws:iam::000000000000:role/member")).unwrap();
    cloud.put_mail_identity("app@Example.com").unwrap();
    cloud.put_bucket("by-hand").unwrap();
    let public = json!({"Version": "2012-10-17", "Statement": [{"Sid": "Public", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::by-hand/site/*"}]});
    println!("blocked: {}", cloud.put_bucket_policy("by-hand", Some(public.clone())).unwrap_err());
    cloud.set_block_public_policy("by-hand", false).unwrap();
    cloud.put_bucket_policy("by-hand", Some(public)).unwrap();
    cloud.put_object(NewObject { bucket: "by-hand".into(), key: "site/index.html".into(), body: b"<!doctype html>hello world".to_vec(), content_type: "text/html; charset=utf-8".into(), content_encoding: None, cache_control: Some("no-cache".into()) }).unwrap();
    let admin = cloud.admin();
    println!("KEY={} SECRET={} POOL={} MAILBOX={}", admin.access_key_id, admin.secret_access_key, pool.id, cloud.mailbox_url());
    cloud.serve(api, site, async { let _ = tokio::signal::ctrl_c().await; }).await.unwrap();
    println!("ended");
}
