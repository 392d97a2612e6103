{{- define "fulmar.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "fulmar.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* What a DaemonSet selects its pods by; it never changes. Takes [context, component]. */}}
{{- define "fulmar.selector" -}}
app.kubernetes.io/name: fulmar
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "fulmar.labels" -}}
{{ include "fulmar.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{- /* Whether pods show a ServiceAccount's token to the API. */}}
{{- define "fulmar.token" -}}
{{- if and .Values.api.server .Values.api.serviceAccount }}true{{ end }}
{{- end }}

{{- /* Flags as variables, so that `fulmar doctor` in the same container has them too. */}}
{{- define "fulmar.apiEnv" -}}
{{- if .Values.api.server }}
{{- if regexMatch "://[^/:]*[.]svc([.:/]|$)" .Values.api.server }}{{ fail (printf "api.server: %s is a Service, whose address the agent itself routes: give the API server's own, as kubectl config view --minify has it" .Values.api.server) }}{{ end }}
- name: FULMAR_SERVER
  value: {{ .Values.api.server | quote }}
{{- end }}
{{- if include "fulmar.token" . }}
- name: FULMAR_SERVER_TOKEN
  value: /var/run/secrets/fulmar/token
- name: FULMAR_SERVER_CA
  value: /var/run/secrets/fulmar/ca.crt
{{- end }}
{{- end }}

{{- define "fulmar.apiMount" -}}
{{- if include "fulmar.token" . }}
# The token that it shows to the Kubernetes API, and the CA that it knows that by.
- name: api
  mountPath: /var/run/secrets/fulmar
  readOnly: true
{{- end }}
{{- end }}

{{- define "fulmar.apiVolume" -}}
{{- if include "fulmar.token" . }}
- name: api
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken:
          path: token
          # Kubelets renew it after 80 % of that; a site that is offline for longer is refused until they can again.
          expirationSeconds: 86400
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
{{- end }}
{{- end }}

{{- /* Whether pods join the nodes that they run on. */}}
{{- define "fulmar.join" -}}
{{- if .Values.identity.ca }}true{{ end }}
{{- end }}

{{- define "fulmar.joinRelay" -}}
{{- if .Values.identity.relay }}{{ .Values.identity.relay }}
{{- else if .Values.relay.replicas }}{{ with first (first .Values.relay.replicas).public }}{{ printf (ternary "https://[%s]:443" "https://%s:443" (contains ":" .)) . }}{{ end }}
{{- else }}{{ fail "identity.ca: name the relay too: identity.relay" }}
{{- end }}
{{- end }}

{{- define "fulmar.joinEnv" -}}
{{- if include "fulmar.join" . }}
- name: FULMAR_JOIN_RELAY
  value: {{ include "fulmar.joinRelay" . | quote }}
- name: FULMAR_JOIN_CA
  value: /var/run/secrets/fulmar-join/ca.crt
- name: FULMAR_JOIN_TOKEN
  value: /var/run/secrets/fulmar-join/token
{{- end }}
{{- end }}

{{- define "fulmar.joinMount" -}}
{{- if include "fulmar.join" . }}
# A token that is good for joining and for nothing else, and the CA that the relay is known by.
- name: join
  mountPath: /var/run/secrets/fulmar-join
  readOnly: true
{{- end }}
{{- end }}

{{- define "fulmar.joinVolume" -}}
{{- if include "fulmar.join" . }}
- name: join
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken:
          audience: fulmar
          path: token
          expirationSeconds: 3600
      - configMap:
          name: {{ include "fulmar.name" . }}-mesh-ca
          items:
            - key: ca.crt
              path: ca.crt
{{- end }}
{{- end }}

{{- define "fulmar.nodeName" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
